"use strict";
// Text is set as text, never as markup: names come from folders and files.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("review-data").textContent);
  $("review-data").remove(); // its text would stay in memory beside what it says
  const n = data.ids.length, labels = data.labels;
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const arrays = { i1: Int8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };
  const column = ([type, text]) => {
    const decoded = atob(text), bytes = new Uint8Array(decoded.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = decoded.charCodeAt(i);
    return new arrays[type](bytes.buffer);
  };
  const { given, believed, label, split, problem, decision, probability, outlier, group, flags, near } =
    Object.fromEntries(Object.entries(data.columns).map(([name, packed]) => [name, column(packed)]));
  const NONE = data.decisions.length; // the code of what is undecided
  const [BELIEVE, KEEP, RELABEL, DROP] = ["believe", "keep", "relabel", "drop"].map((name) => data.decisions.indexOf(name));
  const count = (value) => value.toLocaleString("en-US");
  const plural = (value, one, several = `${one}s`) => `${count(value)} ${value === 1 ? one : several}`;
  const percent = (value) => {
    if (value < 0.0005) return "<0.1%";
    return value > 0.995 ? ">99%" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)}%`;
  };

  // --- Decisions: what was decided here lies over what the table remembers. ---

  const own = new Map(); // row -> [code, label]
  const decided = (row) => own.get(row) || (decision[row] === NONE ? null : [decision[row], labels[label[row]]]);
  const labelOf = (row, code, other) =>
    code === BELIEVE ? labels[believed[row]] : code === KEEP ? labels[given[row]] : code === RELABEL ? other : "";
  const history = [];
  const place = `saln labels ${data.review} ${data.fingerprint}`;
  let keeps = true, waiting = 0, unsaved = false;
  const store = () => {
    clearTimeout(waiting);
    waiting = 0;
    try {
      const rows = [...own].map(([row, [code, text]]) => (code === RELABEL ? [row, code, text] : [row, code]));
      localStorage.setItem(place, JSON.stringify(rows));
    } catch {
      keeps = false; // refused, or full
    }
    $("storage").hidden = keeps;
  };
  const restore = () => {
    // What was decided before and is not applied is saved again with the rest.
    for (let row = 0; row < n; row++) if (decision[row] !== NONE && label[row] !== given[row]) own.set(row, decided(row));
    try {
      for (const [row, code, text] of JSON.parse(localStorage.getItem(place) || "[]"))
        if (row < n && code < NONE) own.set(row, [code, labelOf(row, code, text)]);
    } catch {
      keeps = false;
    }
    store();
  };
  const change = (changes, what) => {
    const before = changes.map(([row]) => [row, own.get(row)]);
    for (const [row, value] of changes) value ? own.set(row, value) : own.delete(row);
    history.push({ before, what });
    if (history.length > 1000) history.shift();
    changed(what);
  };
  const changed = (what) => {
    unsaved = own.size > 0;
    if (!waiting) waiting = setTimeout(store, 100);
    $("said").textContent = what;
    for (const card of cards.values()) paint(card);
    if ($("closer").open) paint($("closer-body"));
    progress();
  };
  const undo = () => {
    const last = history.pop();
    if (!last) return;
    for (const [row, value] of last.before) value ? own.set(row, value) : own.delete(row);
    changed(`Undone: ${last.what}`);
    const at = shown.indexOf(last.before[0][0]);
    if (at >= 0 && last.before.length === 1) moveTo(at);
  };
  // What is not known can be neither believed nor kept.
  const possible = (row, code) => code === DROP || code === RELABEL || labelOf(row, code) !== "";
  const named = (row, [code, text]) => `${data.ids[row]}: ${code === DROP ? "dropped" : code === KEEP ? `${text} kept` : text}`;
  const decide = (row, code, other) => {
    if (!possible(row, code)) return false;
    const now = own.get(row), value = [code, labelOf(row, code, other)];
    // The same once more takes it back.
    if (now && now[0] === code && code !== RELABEL) change([[row, undefined]], `${data.ids[row]}: undecided`);
    else change([[row, value]], named(row, value));
    return true;
  };
  const decideAll = (code) => {
    const rows = [...shown].filter((row) => possible(row, code));
    const what = `${count(rows.length)} decided: ${data.decisions[code]}`;
    if (rows.length) change(rows.map((row) => [row, [code, labelOf(row, code)]]), what);
  };

  // --- Which rows are shown, and in which order. ---

  const state = { kind: "suspected", split: -1, given: -1, believed: -1, text: "", most: 0.5, undecided: false };
  const sorted = (...keys) => {
    const order = Int32Array.from({ length: n }, (_, row) => row);
    // Unknown numbers come last.
    const rank = (value) => (value === value ? value : Infinity);
    return order.sort((a, b) => {
      for (const key of keys) {
        const x = rank(key(a)), y = rank(key(b));
        if (x !== y) return x < y ? -1 : 1;
      }
      return a - b;
    });
  };
  const once = (make) => { let value; return () => (value ??= make()); };
  const worst = once(() => sorted((row) => probability[row]));
  const copies = once(() => sorted((row) => (group[row] < 0 ? NaN : group[row]), (row) => probability[row]));
  const suspected = (row) => probability[row] === probability[row] && decision[row] === NONE;
  const kinds = {
    suspected: { order: worst, has: suspected },
    across: { order: copies, has: (row) => flags[row] & 2 },
    leaks: { order: copies, has: (row) => flags[row] & 4 },
    inside: { order: copies, has: (row) => flags[row] & 1 },
    outliers: { order: once(() => sorted((row) => -outlier[row])), has: (row) => flags[row] & 8 },
    problems: { order: once(() => sorted((row) => problem[row])), has: (row) => problem[row] },
    decided: { order: worst, has: (row) => decided(row) },
    all: { order: worst, has: () => true },
  };
  const searchable = once(() => data.ids.map((id, row) => (data.texts ? `${id}\n${data.texts[row]}` : id).toLowerCase()));
  let shown = new Int32Array(0), pairs = new Map(), current = 0;
  const filter = () => {
    const { order, has } = kinds[state.kind], { most } = state;
    const text = state.text.toLowerCase(), names = text ? searchable() : null;
    const found = new Int32Array(n), stride = labels.length;
    let size = 0;
    pairs = new Map();
    for (const row of order()) {
      if (!has(row) || (state.split >= 0 && split[row] !== state.split)) continue;
      if (most < 1 && !(probability[row] < most)) continue;
      if (text && !names[row].includes(text)) continue;
      if (state.undecided && decided(row)) continue;
      if (given[row] !== believed[row]) {
        const pair = given[row] * stride + believed[row];
        pairs.set(pair, (pairs.get(pair) || 0) + 1);
      }
      if ((state.given >= 0 && given[row] !== state.given) || (state.believed >= 0 && believed[row] !== state.believed)) continue;
      found[size++] = row;
    }
    shown = found.slice(0, size);
    current = 0;
    for (const card of cards.values()) card.remove();
    cards.clear();
    say();
    drawPairs();
    layOut();
  };
  const say = () => {
    let wrong = 0, known = 0;
    for (const row of shown) {
      if (probability[row] !== probability[row]) continue;
      known++;
      wrong += 1 - probability[row];
    }
    const expected = known ? `, about ${count(Math.round(wrong))} wrong (${Math.round((100 * wrong) / known)}%)` : "";
    $("status").textContent = `${count(shown.length)} shown${expected}`;
    $("empty").hidden = shown.length > 0;
    $("empty").textContent = state.kind === "suspected" ? "No label here looks wrong." : "Nothing here.";
    for (const button of document.querySelectorAll("[data-all]")) button.disabled = !shown.length;
  };
  const progress = () => {
    let all = 0, done = 0;
    for (let row = 0; row < n; row++) {
      if (!(probability[row] < 0.5) || decision[row] !== NONE) continue;
      all++;
      if (own.has(row)) done++;
    }
    $("progress").max = Math.max(1, all);
    $("progress").value = done;
    const others = own.size - done, and = others ? `, and ${plural(others, "other")}` : "";
    $("progress-text").textContent = `${count(done)} of ${count(all)} decided${and}`;
    $("undo").disabled = !history.length;
    $("save").disabled = !own.size;
  };
  const set = (values) => {
    Object.assign(state, values);
    $("kind").value = state.kind;
    $("most").value = state.most;
    $("most-text").textContent = state.most < 1 ? state.most.toFixed(2) : "any";
    for (const name of ["given", "believed", "split"]) $(name).value = state[name];
    $("text").value = state.text;
    $("undecided").checked = state.undecided;
    filter();
  };
  const mostOf = (kind) => (kind === "suspected" ? 0.5 : 1);

  // --- Given and believed classes: a matrix of the most confused, and a list of pairs. ---

  let asList = false;
  const pairButton = (one, two, times) => {
    const button = make("button", "", count(times));
    button.type = "button";
    button.setAttribute("aria-label", `${labels[one]} believed to be ${labels[two]}: ${count(times)}`);
    button.title = `${labels[one]} → ${labels[two]}`;
    button.setAttribute("aria-pressed", state.given === one && state.believed === two);
    button.dataset.pair = `${one} ${two}`;
    return button;
  };
  const heading = (scope, text) => {
    const cell = make("th", "", text);
    cell.scope = scope;
    cell.title = text;
    return cell;
  };
  const drawPairs = () => {
    if (data.task !== "classes" || !$("confusion").open) return;
    const focused = document.activeElement?.dataset.pair;
    const stride = labels.length;
    const list = [...pairs]
      .map(([pair, times]) => [Math.floor(pair / stride), pair % stride, times])
      .filter(([one, two]) => labels[one] && labels[two])
      .sort((a, b) => b[2] - a[2]);
    const none = () => make("p", "soft", "No two classes are confused in what is shown.");
    $("pairs").replaceChildren(!list.length ? none() : asList ? listOf(list) : matrixOf(list));
    if (focused) $("pairs").querySelector(`[data-pair="${focused}"]`)?.focus();
  };
  const listOf = (list) => {
    const table = make("table", "list"), body = make("tbody"), head = make("tr");
    const frequent = `The 50 most frequent of ${count(list.length)} pairs`;
    table.append(make("caption", "", list.length > 50 ? frequent : "Labels of each pair of classes"), make("thead"), body);
    head.append(heading("col", "Given"), heading("col", "Believed"), heading("col", "Labels"));
    table.tHead.append(head);
    for (const [one, two, times] of list.slice(0, 50)) {
      const row = make("tr"), cell = make("td");
      cell.append(pairButton(one, two, times));
      row.append(heading("row", labels[one]), make("td", "", labels[two]), cell);
      body.append(row);
    }
    return table;
  };
  const matrixOf = (list) => {
    const totals = new Map();
    for (const [one, two, times] of list) for (const each of [one, two]) totals.set(each, (totals.get(each) || 0) + times);
    const top = [...totals].sort((a, b) => b[1] - a[1]).slice(0, 10).map(([each]) => each).sort((a, b) => a - b);
    const most = list[0][2], counts = new Map(list.map(([one, two, times]) => [`${one} ${two}`, times]));
    const table = make("table", "matrix"), body = make("tbody"), head = make("tr");
    const which = totals.size > top.length ? `The ${top.length} classes of ${totals.size} that are confused most. ` : "";
    table.append(make("caption", "", `${which}Rows: given; columns: believed.`), make("thead"), body);
    head.append(make("td"));
    for (const two of top) {
      const cell = heading("col", "");
      cell.title = labels[two];
      cell.append(make("span", "", labels[two]));
      head.append(cell);
    }
    table.tHead.append(head);
    for (const one of top) {
      const row = make("tr");
      row.append(heading("row", labels[one]));
      for (const two of top) {
        const cell = make("td", one === two ? "same" : ""), times = counts.get(`${one} ${two}`);
        if (times) {
          const button = pairButton(one, two, times);
          button.style.background = `color-mix(in srgb, var(--heat) ${Math.round(15 + (55 * times) / most)}%, var(--card))`;
          cell.append(button);
        }
        row.append(cell);
      }
      body.append(row);
    }
    return table;
  };

  // --- Pictures: those that the page holds, else the example's own file. ---

  const held = new Int32Array(n).fill(-1);
  data.pictures.rows.forEach((row, at) => (held[row] = at));
  // A name that is no UTF-8 holds its bytes as lone surrogates.
  const pieces = (text, plain, byte) =>
    text.split(/(\p{Cs})/u).map((part, at) => (at % 2 ? byte(part.charCodeAt(0) & 255) : plain(part)));
  const address = (row) => {
    if (!data.files) return "";
    const name = (data.files.names || data.ids)[row];
    const parts = name.split("/").map((part) => pieces(part, encodeURIComponent, (byte) => `%${byte.toString(16)}`).join(""));
    return data.files.base + parts.join("/");
  };
  const blank = (row) => make("span", "blank", problem[row] ? data.problems[problem[row]] : data.ids[row]);
  const image = (row, name, large) => {
    const small = held[row] < 0 ? "" : `data:image/jpeg;base64,${data.pictures.jpeg[held[row]]}`;
    const sources = [small, address(row)].filter(Boolean);
    if (large) sources.reverse();
    if (!sources.length) return blank(row);
    const element = make("img", name);
    element.alt = "";
    element.decoding = "async";
    element.loading = "lazy";
    element.addEventListener("load", () => { if (element.naturalWidth < 64) element.style.imageRendering = "pixelated"; });
    element.addEventListener("error", () => (sources.length ? (element.src = sources.shift()) : element.replaceWith(blank(row))));
    const first = sources.shift();
    if (large || first.startsWith("data:")) element.src = first;
    else setTimeout(() => element.isConnected && (element.src = first), 80); // not what is only scrolled past
    return element;
  };
  const shownAs = (row, name, large) => {
    if (!data.texts) return image(row, name, large);
    return make(name === "little" ? "p" : "span", "words", data.texts[row]);
  };

  // --- Cards: only those in and around the window are in the document. ---

  const grid = $("grid"), cards = new Map(); // place in shown -> card
  const MOST_PIXELS = 17e6; // browsers do not scroll further
  let columns = 1, width = 0, height = 0, gap = 0, printing = false, laidOut = 0;
  const clickable = (code, text, help) => {
    const button = make("button", "", text);
    button.type = "button";
    button.dataset.do = data.decisions[code];
    button.title = help;
    return button;
  };
  const choices = (row, large) => {
    const holder = make("div", "choices");
    holder.setAttribute("role", "group");
    holder.setAttribute("aria-label", "Decide");
    const texts = [
      [BELIEVE, "Believe", `Take ${labels[believed[row]]} (b)`],
      [KEEP, "Keep", `${labels[given[row]]} is right (k)`],
      [RELABEL, "Other", "Another label (o)"],
      [DROP, "Drop", "Take it out of the data set (d)"],
    ];
    for (const [code, text, help] of texts) {
      const name = large ? labelOf(row, code, "") : "";
      const button = clickable(code, name ? `${text} ${name}` : text, help);
      button.disabled = !possible(row, code);
      holder.append(button);
    }
    return holder;
  };
  const says = (name, arrow, text) => {
    const line = make("div", name);
    line.title = `${name}: ${text}`;
    line.append(make("span", "away", `${name} `), `${arrow}${text || "–"}`);
    return line;
  };
  const groups = once(() => {
    const found = new Map();
    group.forEach((number, row) => {
      if (number < 0) return;
      if (!found.has(number)) found.set(number, []);
      found.get(number).push(row);
    });
    return found;
  });
  const isCopies = () => kinds[state.kind].order === copies;
  // Of a near duplicate its copies, else the nearest that carry another label.
  const besides = (row) => {
    const rows = isCopies() ? groups().get(group[row]) : [...near.subarray(3 * row, 3 * row + 3)];
    return rows.filter((other) => other >= 0 && other !== row);
  };
  const neighbors = (row, large) => {
    const holder = make("div", "near");
    for (const other of besides(row).slice(0, 3)) {
      const one = make("div"), name = labels[given[other]] || "–";
      const caption = make("span", "", state.kind === "leaks" ? data.splits[split[other]] : name);
      one.title = [name, data.splits[split[other]], data.ids[other]].filter(Boolean).join(": ");
      one.append(shownAs(other, "little", large), caption);
      holder.append(one);
    }
    return holder;
  };
  const known = (row) => probability[row] === probability[row];
  const card = (at) => {
    const row = shown[at], element = make("article", "card");
    element.dataset.at = at;
    element.setAttribute("aria-posinset", at + 1);
    element.setAttribute("aria-setsize", shown.length);
    const picture = make("button", "picture");
    picture.type = "button";
    picture.setAttribute("aria-label", `Look closer at ${data.ids[row]}`);
    picture.append(shownAs(row, ""));
    if (known(row)) {
      const chance = make("span", "chance", percent(probability[row]));
      chance.title = "Probability that the given label is right";
      picture.append(chance);
    }
    picture.append(make("span", "verdict"));
    const labelled = make("div", "says");
    labelled.append(says("given", "", labels[given[row]]), says("believed", "→ ", labels[believed[row]]));
    const where = make("div", "where");
    where.title = data.ids[row];
    const ofSplit = `${data.splits[split[row]]}: `;
    where.append(make("bdi", "", state.kind === "leaks" ? ofSplit + data.ids[row] : data.ids[row]));
    element.append(picture, labelled, where, neighbors(row), choices(row));
    return element;
  };
  const verdictOf = (value) => (!value ? "" : value[0] === DROP ? "dropped" : value[0] === KEEP ? "kept" : `→ ${value[1]}`);
  const paint = (element) => {
    const inCard = element.dataset.at !== undefined, row = inCard ? shown[element.dataset.at] : +element.dataset.row;
    const value = decided(row), code = value ? value[0] : NONE;
    for (const button of element.querySelectorAll("[data-do]")) {
      button.setAttribute("aria-pressed", data.decisions[code] === button.dataset.do);
    }
    element.querySelector(".verdict").textContent = verdictOf(value);
    if (!inCard) return;
    const isCurrent = +element.dataset.at === current;
    const doubted = given[row] !== believed[row] ? " wrong" : "";
    element.className = `card${isCurrent ? " current" : ""}${doubted} ${value ? data.decisions[code] : ""}`;
    const chance = known(row) ? `, ${percent(probability[row])} that it is right` : "";
    const said = `${labels[given[row]] || "no label"}, believed ${labels[believed[row]] || "nothing"}${chance}`;
    element.setAttribute("aria-label", `${data.ids[row]}: ${said}. ${verdictOf(value)}`);
    // One stop of the tab key for the grid, and one for each button of the card that it is on.
    element.tabIndex = isCurrent ? 0 : -1;
    for (const button of element.querySelectorAll("button")) button.tabIndex = isCurrent ? 0 : -1;
  };
  const put = (at) => {
    const element = card(at);
    cards.set(at, element);
    element.style.width = `${width}px`;
    element.style.height = `${height}px`;
    element.style.transform = `translate(${(at % columns) * (width + gap)}px, ${Math.floor(at / columns) * (height + gap)}px)`;
    paint(element);
    // In the order of the rows, which is that of the tab key and of screen readers.
    let after = null;
    for (const each of grid.children) if (+each.dataset.at > at) { after = each; break; }
    grid.insertBefore(element, after);
  };
  const layOut = () => {
    const style = getComputedStyle(grid), rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const length = (name) => parseFloat(style.getPropertyValue(name)) * rem;
    gap = length("--gap");
    height = length("--card-height");
    laidOut = grid.clientWidth;
    columns = Math.max(1, Math.floor((grid.clientWidth + gap) / (length("--card-width") + gap)));
    width = (grid.clientWidth + gap) / columns - gap;
    const most = Math.floor(MOST_PIXELS / (height + gap)) * columns;
    if (shown.length > most) {
      shown = shown.slice(0, most);
      $("status").textContent += `: the first ${count(most)}`;
    }
    grid.style.height = `${Math.ceil(shown.length / columns) * (height + gap)}px`;
    for (const element of cards.values()) element.remove();
    cards.clear();
    draw();
  };
  const draw = () => {
    const top = grid.getBoundingClientRect().top, line = height + gap, spare = 600;
    let first = Math.max(0, Math.floor((-top - spare) / line)) * columns;
    let end = Math.min(shown.length, Math.ceil((window.innerHeight - top + spare) / line) * columns);
    if (printing) [first, end] = [0, Math.min(shown.length, 120)];
    for (const [at, element] of cards) {
      // What the keyboard is on stays, wherever one scrolls.
      if ((at < first || at >= end) && at !== current) {
        element.remove();
        cards.delete(at);
      }
    }
    for (let at = first; at < end; at++) if (!cards.has(at)) put(at);
    if (shown.length && !printing && !cards.has(current)) put(current);
  };
  const barHeight = () => {
    const bar = document.querySelector(".bar");
    return getComputedStyle(bar).position === "sticky" ? bar.offsetHeight : 0;
  };
  const isInView = () => {
    const box = cards.get(current)?.getBoundingClientRect();
    return !box || (box.bottom > barHeight() + height / 3 && box.top < window.innerHeight - height / 3);
  };
  const firstInView = () => Math.max(0, Math.ceil((barHeight() - grid.getBoundingClientRect().top) / (height + gap))) * columns;
  const select = (at) => {
    const before = cards.get(current);
    current = Math.min(shown.length - 1, Math.max(0, at));
    for (const element of [before, cards.get(current)]) if (element) paint(element);
  };
  const moveTo = (at, focus = true) => {
    if (!shown.length) return;
    select(at);
    const top = grid.getBoundingClientRect().top + Math.floor(current / columns) * (height + gap), bar = barHeight();
    const above = top - bar - 8, below = top + height + 8 - window.innerHeight;
    if (above < 0) window.scrollBy(0, above);
    else if (below > 0) window.scrollBy(0, Math.min(below, above));
    draw();
    if ($("closer").open) look();
    else if (focus) cards.get(current).focus({ preventScroll: true });
  };

  // --- One example, larger. ---

  const look = () => {
    const row = shown[current], body = $("closer-body"), left = make("div"), right = make("div"), facts = make("dl");
    body.dataset.row = row;
    $("closer-title").textContent = data.ids[row];
    left.append(shownAs(row, "large", true));
    const lines = [
      ["Given", labels[given[row]]],
      ["Believed", labels[believed[row]]],
      ["Given is right", known(row) ? percent(probability[row]) : ""],
      ["Split", data.splits[split[row]]],
      ["Outlier", outlier[row] === outlier[row] ? outlier[row].toFixed(2) : ""],
      ["Near duplicates", group[row] < 0 ? "" : `group ${group[row]}`],
      ["Problem", data.problems[problem[row]]],
    ];
    for (const [what, text] of lines) if (text) facts.append(make("dt", "", what), make("dd", "", text));
    facts.append(make("dt", "", "Decided"), make("dd", "verdict"));
    right.append(facts);
    if (besides(row).length) {
      const title = isCopies() ? "Near duplicates:" : "Nearest examples with another label:";
      right.append(make("p", "soft", title), neighbors(row, true));
    }
    right.append(choices(row, true));
    body.replaceChildren(left, right);
    paint(body);
    if (!$("closer").open) $("closer").showModal();
  };

  // --- Another label. ---

  const ask = () => {
    const row = shown[current], now = decided(row);
    $("other-of").textContent = `Label of ${data.ids[row]}`;
    $("other-label").value = now && now[0] === RELABEL ? now[1] : "";
    hint();
    $("other").returnValue = "";
    $("other").showModal();
  };
  const hint = () => {
    const text = $("other-label").value.trim();
    const isNew = data.task === "classes" && text && !labels.slice(0, data.classes).includes(text);
    $("other-hint").textContent = isNew ? "No class has this name: it takes --new-classes to apply that." : "";
  };

  // --- The file: saved, and loaded again. ---

  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const save = () => {
    if (!own.size) return;
    const lines = [data.header.join(",")];
    for (const row of [...own.keys()].sort((a, b) => a - b)) {
      const [code, text] = own.get(row);
      const [name, key, review] = [data.ids[row], data.keys[row], data.review];
      const about = { id: name, split: data.splits[split[row]], given: labels[given[row]], key, review };
      const values = { ...about, decision: data.decisions[code], label: text };
      lines.push(data.header.map((name) => quoted(values[name])).join(","));
    }
    const link = make("a");
    link.download = "decisions.csv";
    const content = pieces(lines.join("\r\n") + "\r\n", String, (byte) => Uint8Array.of(byte));
    link.href = URL.createObjectURL(new Blob(content, { type: "text/csv" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    unsaved = false;
    const saved = plural(own.size, "decision is", "decisions are");
    $("next-text").textContent = `${saved} in decisions.csv, where this browser saves files. In that folder:`;
    $("next").showModal();
  };
  const parse = (text, separator) => {
    const rows = [[]];
    // A cell in quotes or a plain one, and what ends it.
    const cells = new RegExp(`(?:"([^"]*(?:""[^"]*)*)"|([^"${separator}\\r\\n]*))(${separator}|\\r\\n|\\n|\\r|$)`, "g");
    for (const [, cell, plain, end] of text.matchAll(cells)) {
      rows.at(-1).push(cell === undefined ? plain : cell.replaceAll('""', '"'));
      if (end === "") break;
      if (end !== separator) rows.push([]);
    }
    return rows.filter((row) => row.length > 1);
  };
  // As `saln labels apply` reads it: spreadsheets save semicolons, tabs and UTF-16, too.
  const read = async (file) => {
    const bytes = new Uint8Array(await file.arrayBuffer()), [first, second] = bytes;
    const coding = first === 255 && second === 254 ? "utf-16le" : first === 254 && second === 255 ? "utf-16be" : "utf-8";
    const text = new TextDecoder(coding).decode(bytes).replace(/^sep=.(\r\n|\n|\r)/i, "");
    const tables = [",", ";", "\t"].map((separator) => {
      const [header = [], ...rows] = parse(text, separator), names = header.map((name) => name.trim().toLowerCase());
      return [Object.fromEntries(data.header.map((name) => [name, names.indexOf(name)])), rows];
    });
    return tables.find(([at]) => at.id >= 0 && at.decision >= 0) || tables[0];
  };
  const load = async (file) => {
    const [at, rows] = await read(file);
    if (at.id < 0 || at.decision < 0) return ($("said").textContent = `${file.name} has no columns id and decision.`);
    const byId = new Map(data.ids.map((id, row) => [id, row])), changes = [];
    let strange = 0;
    for (const cells of rows) {
      const word = (cells[at.decision] || "").trim().toLowerCase();
      if (!word) continue;
      const code = data.decisions.indexOf(word), row = byId.get(cells[at.id]);
      // A decision about another label than the one that is given now is about something else.
      const isSame = at.given < 0 || cells[at.given] === labels[given[row]];
      if (row !== undefined && code >= 0 && isSame && possible(row, code)) changes.push([row, [code, labelOf(row, code, cells[at.label])]]);
      else strange++;
    }
    const rest = strange ? `; ${count(strange)} do not fit this review` : "";
    const what = `${plural(changes.length, "decision")} loaded from ${file.name}${rest}`;
    if (changes.length) change(changes, what);
    $("status").textContent = what;
    $("said").textContent = what;
  };

  // --- What a person does. ---

  const act = (name, at = current) => {
    if (!shown.length) return;
    const code = data.decisions.indexOf(name), wasCurrent = at === current;
    if (!wasCurrent) select(at);
    if (code === RELABEL) return ask();
    const had = own.get(shown[at]);
    return decide(shown[at], code) && !(had && had[0] === code);
  };
  const actAndMove = (name) => act(name) && moveTo(current + 1);
  const keys = {
    b: () => actAndMove("believe"),
    k: () => actAndMove("keep"),
    d: () => actAndMove("drop"),
    o: () => act("relabel"),
    u: undo,
    s: save,
    "?": () => $("help").showModal(),
    j: () => moveTo(current - 1),
    l: () => moveTo(current + 1),
    ArrowLeft: () => moveTo(current - 1),
    ArrowRight: () => moveTo(current + 1),
    ArrowUp: () => moveTo(current - columns),
    ArrowDown: () => moveTo(current + columns),
  };
  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.defaultPrevented || event.altKey || event.metaKey || event.ctrlKey) return;
    if (document.querySelector("dialog[open]:not(#closer)")) return;
    if (target.closest("input:not([type=checkbox]), select")) return;
    const letter = event.key.length === 1;
    if (letter && !$("keys-on").checked) return;
    // Arrows scroll what they are on: the matrix, the filters.
    if (!letter && !target.closest("#grid, #closer") && target !== document.body) return;
    const isCard = target.classList.contains("card");
    const action = event.key === "Enter" ? isCard && look : keys[letter ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault(); // also of the button that a dialog puts the keyboard on
    // Nobody means a card that was scrolled away: the first key finds one that can be seen.
    const isAboutCard = "bkdojl".includes(event.key.toLowerCase()) || !letter;
    if (isAboutCard && !$("closer").open && !isInView()) moveTo(firstInView());
    else action();
  });
  grid.addEventListener("click", (event) => {
    const element = event.target.closest(".card");
    if (!element) return;
    const at = +element.dataset.at, button = event.target.closest("button");
    if (button?.dataset.do) act(button.dataset.do, at);
    else moveTo(at, !button);
    if (button?.classList.contains("picture")) look();
  });
  grid.addEventListener("focusin", (event) => {
    const element = event.target.closest(".card");
    if (element) select(+element.dataset.at); // no scrolling: a click would miss its button
  });
  $("closer").addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) act(button.dataset.do);
  });
  $("closer").addEventListener("close", () => cards.get(current)?.focus({ preventScroll: true }));
  $("before").addEventListener("click", () => moveTo(current - 1));
  $("after").addEventListener("click", () => moveTo(current + 1));
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close(""));
  }
  for (const button of document.querySelectorAll("[data-all]")) {
    button.addEventListener("click", () => decideAll(data.decisions.indexOf(button.dataset.all)));
  }
  $("other-label").addEventListener("input", hint);
  $("other").addEventListener("submit", () => {
    const text = $("other-label").value.trim();
    if (text) decide(shown[current], RELABEL, text);
  });
  $("other").addEventListener("close", () => moveTo(current + ($("other").returnValue ? 1 : 0)));
  $("undo").addEventListener("click", undo);
  $("save").addEventListener("click", save);
  $("help-button").addEventListener("click", () => $("help").showModal());
  $("load").addEventListener("change", () => {
    if ($("load").files.length) load($("load").files[0]);
    $("load").value = "";
  });
  $("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText($("command").textContent);
      $("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren($("command")); // the browser allows no more
    }
  });
  $("pairs").addEventListener("click", (event) => {
    const pair = event.target.closest("[data-pair]")?.dataset.pair.split(" ").map(Number);
    if (!pair) return;
    const again = pair[0] === state.given && pair[1] === state.believed;
    set({ given: again ? -1 : pair[0], believed: again ? -1 : pair[1] });
  });
  for (const [id, list] of [["as-matrix", false], ["as-list", true]]) {
    $(id).addEventListener("click", () => {
      asList = list;
      $("as-matrix").setAttribute("aria-pressed", !list);
      $("as-list").setAttribute("aria-pressed", list);
      drawPairs();
    });
  }
  $("confusion").addEventListener("toggle", drawPairs);
  $("kind").addEventListener("change", () => set({ kind: $("kind").value, most: mostOf($("kind").value) }));
  for (const name of ["given", "believed", "split"]) $(name).addEventListener("change", () => set({ [name]: +$(name).value }));
  $("most").addEventListener("input", () => set({ most: +$("most").value }));
  $("text").addEventListener("input", () => set({ text: $("text").value }));
  $("undecided").addEventListener("change", () => set({ undecided: $("undecided").checked }));
  $("reset").addEventListener("click", () => {
    set({ split: -1, given: -1, believed: -1, text: "", most: mostOf(state.kind), undecided: false });
  });
  let drawing = 0;
  addEventListener("scroll", () => { drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); }); }, { passive: true });
  new ResizeObserver(() => grid.clientWidth !== laidOut && layOut()).observe(grid);
  addEventListener("beforeprint", () => { printing = true; draw(); });
  addEventListener("afterprint", () => { printing = false; layOut(); });
  addEventListener("pagehide", () => waiting && store());
  addEventListener("beforeunload", (event) => { if (!keeps && unsaved) event.preventDefault(); });

  // --- The beginning. ---

  const options = (select, names) => names.forEach((name, value) => {
    if (name === "") return;
    const option = make("option", "", name);
    option.value = value;
    select.append(option);
  });
  const isClasses = data.task === "classes", classes = labels.slice(0, data.classes);
  for (const element of document.querySelectorAll(".by-class")) element.hidden = !isClasses;
  if (isClasses) for (const name of ["given", "believed"]) options($(name), classes);
  options($("split"), data.splits);
  $("by-split").hidden = data.splits.length < 2;
  $("labels").append(...classes.map((name) => { const option = make("option"); option.value = name; return option; }));
  document.body.classList.toggle("texts", !!data.texts);
  if (matchMedia("(max-width: 56rem)").matches) $("filters").open = $("confusion").open = false;
  for (const [name, { has }] of Object.entries(kinds)) {
    if (["suspected", "decided", "all"].includes(name)) continue;
    let size = 0;
    for (let row = 0; row < n; row++) if (has(row)) size++;
    const option = $("kind").querySelector(`[value=${name}]`);
    option.textContent += ` (${count(size)})`;
    option.disabled = !size;
  }
  restore();
  set({});
  progress();
})();
