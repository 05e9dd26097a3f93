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
  for (const button of document.querySelectorAll("button[data-svg]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const svg = document.getElementById(button.dataset.svg).querySelector("svg");
      let text = new XMLSerializer().serializeToString(svg);
      for (const [name, color] of Object.entries(colors)) text = text.replaceAll(`var(${name})`, color);
      save(`${button.dataset.name}.svg`, "image/svg+xml", text);
    });
  }

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
