"use strict";
// Text is set as text, never as markup: names come from folders and files.
(() => {
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const save = (name, type, content) => {
    const link = make("a");
    link.download = name;
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  for (const button of document.querySelectorAll("button[data-csv]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const rows = document.getElementById(button.dataset.csv).rows;
      const lines = [...rows].map((row) => [...row.cells].map((c) => quoted(c.textContent.trim())));
      save(`${button.dataset.name}.csv`, "text/csv", lines.map((l) => l.join(",")).join("\n") + "\n");
    });
  }
  // A saved figure has the colors of paper, whatever the screen shows.
  const colors = JSON.parse(document.getElementById("colors").textContent);
  const drawing = (figure) => {
    let text = new XMLSerializer().serializeToString(figure.querySelector("svg"));
    for (const [name, color] of Object.entries(colors)) text = text.replaceAll(`var(${name})`, color);
    return new TextEncoder().encode(text);
  };
  const checksum = (bytes) => {
    let crc = -1;
    for (const byte of bytes) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc >>> 0;
  };
  // A ZIP file whose entries are stored as they are: headers, then the list of them.
  const zip = (files) => {
    const parts = [], list = [];
    let place = 0, listed = 0;
    const pack = (...fields) => {
      const bytes = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
      let at = 0;
      for (const [size, value] of fields) {
        if (size === 2) bytes.setUint16(at, value, true); else bytes.setUint32(at, value, true);
        at += size;
      }
      return new Uint8Array(bytes.buffer);
    };
    for (const [name, content] of files) {
      const title = new TextEncoder().encode(name), size = content.length;
      // Version, flags (names are UTF-8), no compression, time, date (1980-01-01).
      const about = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, 33], [4, checksum(content)], [4, size],
        [4, size], [2, title.length], [2, 0]];
      parts.push(pack([4, 0x04034b50], ...about), title, content);
      list.push(pack([4, 0x02014b50], [2, 20], ...about, [2, 0], [2, 0], [2, 0], [4, 0], [4, place]), title);
      place += 30 + title.length + size;
      listed += 46 + title.length;
    }
    const count = files.length;
    list.push(pack([4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, listed], [4, place], [2, 0]));
    return new Blob([...parts, ...list]);
  };
  const all = document.getElementById("save-figures");
  if (all) {
    all.hidden = false;
    all.addEventListener("click", () => {
      const figures = [...document.querySelectorAll("figure[data-name]")];
      save("figures.zip", "application/zip", zip(figures.map((f) => [`${f.dataset.name}.svg`, drawing(f)])));
    });
  }

  // A heading of a column sorts by it: numbers as numbers, a second time the other way round.
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replaceAll(",", ""));
    return Number.isNaN(number) ? text : number;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const button = make("button", undefined, "sort");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => {
          const [x, y] = [value(a, column), value(b, column)];
          // What is no number comes behind all that are.
          if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
          const order = typeof x === "number" ? x - y : x.localeCompare(y);
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  // A link of the contents opens what it leads to; paper shows everything.
  const reveal = () => {
    const part = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = part && part.closest("details");
    if (fold) {
      fold.open = true;
      part.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  reveal();
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", () => setTimeout(reveal)); // also where the address stays
  }
  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
  });

  const holder = document.getElementById("gallery-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const [arm, epoch, batch] = ["arm", "epoch", "batch"].map((n) => document.getElementById(`gallery-${n}`));
  const shown = document.getElementById("gallery-shown");
  const fill = (select, values) => {
    const before = select.value;
    select.replaceChildren(...values.map((value) => {
      const option = make("option", value);
      option.value = value;
      return option;
    }));
    if (values.map(String).includes(before)) select.value = before;
  };
  const unique = (values) => [...new Set(values)];
  const tile = (candidate, key) => {
    const [place, index, label, truth, score, kept] = candidate;
    const name = data.class_names[label];
    const wrong = label !== truth;
    const item = make("li", undefined, wrong ? "wrong" : "");
    const image = make("span", undefined, data.small ? "image small" : "image");
    const column = place % data.columns, row = Math.floor(place / data.columns), rows = data.rows[key];
    image.style.backgroundImage = `url("${data.sheets[key]}")`;
    image.style.backgroundSize = `${100 * data.columns}% ${100 * rows}%`;
    image.style.backgroundPosition =
      `${(100 * column) / Math.max(1, data.columns - 1)}% ${(100 * row) / Math.max(1, rows - 1)}%`;
    image.setAttribute("role", "img");
    image.setAttribute("aria-label", `example ${index}, labeled ${name}`);
    item.append(image, make("span", name));
    if (wrong) {
      const line = make("span");
      line.append(make("b", `wrong: ${data.class_names[truth]}`));
      item.append(line);
    }
    if (score !== null) item.append(make("span", `score ${Number(score.toPrecision(3))}`));
    return item;
  };
  const draw = () => {
    const mine = data.batches.filter((b) => b.arm === arm.value);
    fill(epoch, unique(mine.map((b) => b.epoch)));
    const now = mine.filter((b) => String(b.epoch) === epoch.value);
    fill(batch, now.map((b) => b.step));
    const found = now.find((b) => String(b.step) === batch.value);
    const key = `${found.epoch}-${found.step}`;
    const parts = [];
    for (const [title, kept] of [["Kept", true], ["Dropped", false]]) {
      const some = found.candidates.filter((c) => c[5] === kept);
      const wrong = some.filter((c) => c[2] !== c[3]).length;
      parts.push(make("h3", `${title}: ${some.length}${wrong ? `, ${wrong} with a wrong label` : ""}`));
      const list = make("ul", undefined, "tiles");
      list.append(...some.map((c) => tile(c, key)));
      parts.push(list);
    }
    if (found.left_out) parts.push(make("p", `${found.left_out} more candidates are not shown.`, "note"));
    shown.replaceChildren(...parts);
    const kept = found.candidates.filter((c) => c[5]).length;
    document.getElementById("gallery-said").textContent =
      `${found.arm}, epoch ${found.epoch}, batch ${found.step}: ${kept} of ${found.candidates.length} kept`;
  };
  fill(arm, unique(data.batches.map((b) => b.arm)));
  for (const select of [arm, epoch, batch]) select.addEventListener("change", draw);
  draw();
})();
