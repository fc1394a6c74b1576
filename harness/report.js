"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const table = $("table");
  if (!table) return;
  const panel = $("panel"), narrow = matchMedia("(max-width: 900px)");
  /** rows that unfold by themselves: more than that is not read, and costs time */
  const SELF_UNFOLDING = 300;

  /** Make an element: what is somebody's text only ever becomes text. */
  function make(tag, properties, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (value === undefined || value === false) continue;
      if (name in node && !name.includes("-")) node[name] = value; else node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  // -- what there is

  const tests = [], numbers = new Map(), columns = new Map(data.columns.map((column, c) => [column.kernel, c]));
  for (const file of data.files) {
    for (const test of file.tests) {
      test.file = file;
      test.changes = new Map();
      test.number = tests.length;
      numbers.set(test.test, tests.length);
      tests.push(test);
    }
  }
  for (const [column, name, line] of data.changes) {
    const changes = tests[numbers.get(name)].changes;
    changes.set(column, [...(changes.get(column) || []), line]);
  }
  const outcome = (test, column) => data.outcomes[test.outcomes[column]];
  const isRed = (test, column) => Boolean(outcome(test, column)) && !outcome(test, column).green;
  const reds = [];
  for (const test of tests) for (let c = 0; c < data.columns.length; c++) if (isRed(test, c)) reds.push([test, c]);
  const total = tests.reduce((sum, test) => sum + data.columns.filter((_, c) => outcome(test, c)).length, 0);
  const counted = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

  // -- the address: it keeps the filters and the open cell

  const state = { red: false, changed: false, suites: new Set(), outcomes: new Set(), text: "", cell: null };
  const name = ([test, column]) => `${data.columns[column].kernel}/${test.test}`;

  function find(named) {
    const slash = named.indexOf("/");
    const column = columns.get(named.slice(0, slash)), number = numbers.get(named.slice(slash + 1));
    return column === undefined || number === undefined || !outcome(tests[number], column) ? null : [tests[number], column];
  }

  function read() {
    const said = new URLSearchParams(location.hash.slice(1));
    state.red = said.has("failed");
    state.changed = said.has("changed");
    state.suites = new Set(said.getAll("suite"));
    state.outcomes = new Set(said.getAll("outcome"));
    state.text = said.get("text") || "";
    state.cell = said.has("cell") ? find(said.get("cell")) : null;
  }

  function write() {
    const said = new URLSearchParams();
    if (state.red) said.set("failed", "1");
    if (state.changed) said.set("changed", "1");
    for (const suite of state.suites) said.append("suite", suite);
    for (const each of state.outcomes) said.append("outcome", each);
    if (state.text) said.set("text", state.text);
    if (state.cell) said.set("cell", name(state.cell));
    const hash = said.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  // -- filters

  const filtering = () => state.red || state.changed || state.suites.size > 0 || state.outcomes.size > 0 || state.text !== "";
  let lowered = null;

  /** Return for each word which of the texts have it. */
  function wordsOf(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length && !lowered) lowered = data.texts.map((each) => each.toLowerCase());
    return words.map((word) => ({
      word,
      texts: new Set(lowered.flatMap((each, number) => (each.includes(word) ? [number] : []))),
      columns: new Set(data.columns.flatMap((each, c) => (`${each.kernel} ${each.release}`.toLowerCase().includes(word) ? [c] : []))),
    }));
  }

  function matcher() {
    const words = wordsOf(state.text);
    return (test, column) => {
      const is = outcome(test, column);
      if (!is || (state.red && is.green) || (state.changed && !test.changes.has(column))) return false;
      if (state.outcomes.size && !state.outcomes.has(is.name)) return false;
      if (state.suites.size && !state.suites.has(test.file.suite)) return false;
      return words.every(({ word, texts, columns: named }) => named.has(column) || test.test.toLowerCase().includes(word) ||
        (test.parts && (test.parts[column] || []).some(([, text]) => texts.has(text))));
    };
  }

  // -- the matrix: a file's rows are made when it unfolds

  const groups = [...table.tBodies].map((head, number) => {
    const file = data.files[number];
    const old = head.querySelector(".toggle");
    const toggle = make("button", { type: "button", className: "toggle", "aria-expanded": "false" }, ...old.childNodes);
    old.replaceWith(toggle);
    const body = make("tbody", { className: "cells", hidden: true });
    head.after(body);
    const group = { file, head, toggle, body, number: head.querySelector(".toggle .number"), said: null, open: false, made: false, rows: [] };
    group.red = file.tests.some((test) => data.columns.some((_, c) => isRed(test, c)));
    toggle.addEventListener("click", () => { group.said = !group.open; draw(); });
    return group;
  });
  const groupOf = new Map(groups.map((group) => [group.file, group]));

  function cellButton(test, column) {
    const is = outcome(test, column);
    if (!is) return make("td");
    const changed = test.changes.has(column);
    const said = `${data.columns[column].kernel}: ${is.name}${changed ? ", changed" : ""}`;
    const className = `cell ${is.name}${changed ? " changed" : ""}`;
    return make("td", null, make("button", { type: "button", className, tabIndex: -1, title: said, "aria-label": said }, is.sign));
  }

  function row(test) {
    const colons = test.test.indexOf("::"), short = colons < 0 ? test.test : test.test.slice(colons + 2);
    const bracket = short.includes("[") ? short.indexOf("[") : short.length;
    const parameters = bracket < short.length ? make("span", { className: "parameters" }, short.slice(bracket)) : null;
    const label = make("span", { className: "label test", title: test.test }, make("span", null, short.slice(0, bracket)), parameters);
    const line = make("tr", { className: "row" }, make("th", { scope: "row" }, label));
    for (let c = 0; c < data.columns.length; c++) line.append(cellButton(test, c));
    line.test = test;
    return line;
  }

  function unfold(group, open) {
    if (open && !group.made) {
      group.rows = group.file.tests.map(row);
      group.body.append(...group.rows);
      group.made = true;
    }
    group.open = open;
    group.body.hidden = !open;
    group.toggle.setAttribute("aria-expanded", String(open));
  }

  function draw() {
    const matches = matcher(), filtered = filtering();
    let cells = 0, shown = 0, itselfUnfolded = 0;
    for (const group of groups) {
      group.matching = new Map();
      for (const test of group.file.tests) {
        const found = data.columns.map((_, c) => matches(test, c));
        const number = found.filter(Boolean).length;
        cells += number;
        if (number) group.matching.set(test, found);
      }
      const size = group.matching.size;
      shown += size;
      group.head.hidden = size === 0;
      group.number.textContent = size < group.file.tests.length ? `${size} of ${group.file.tests.length}` : String(size);
      const itself = (filtered || group.red) && itselfUnfolded + size <= SELF_UNFOLDING;
      if (itself) itselfUnfolded += size;
      const holds = state.cell !== null && state.cell[0].file === group.file;
      unfold(group, size > 0 && (group.said ?? (itself || holds)));
      if (!group.open) continue;
      for (const line of group.rows) drawRow(line, group.matching.get(line.test), filtered);
      const stop = group.body.querySelector('button.cell[tabindex="0"]');
      if (!stop || stop.closest("tr").hidden) stopAt(group.body, group.body.querySelector("tr:not([hidden]) button.cell"));
    }
    $("shown").textContent = filtered ? `Showing ${cells.toLocaleString("en")} of ${counted(total, "cell")}, in ${shown.toLocaleString("en")} of ${counted(tests.length, "test")}.`
      : `${counted(total, "cell")} in ${counted(tests.length, "test")}.`;
    drawFilters(filtered);
    drawCurrent();
  }

  function drawRow(line, found, filtered) {
    line.hidden = !found;
    if (!found) return;
    for (let c = 0; c < found.length; c++) {
      const button = line.cells[c + 1].firstChild;
      if (button) button.classList.toggle("dim", filtered && !found[c]);
    }
  }

  function drawFilters(filtered) {
    if ($("text").value !== state.text) $("text").value = state.text;
    $("only-red").setAttribute("aria-pressed", String(state.red));
    $("only-changed").setAttribute("aria-pressed", String(state.changed));
    for (const chip of document.querySelectorAll("[data-suite]")) chip.setAttribute("aria-pressed", String(state.suites.has(chip.dataset.suite)));
    for (const chip of document.querySelectorAll("[data-outcome]")) chip.setAttribute("aria-pressed", String(state.outcomes.has(chip.dataset.outcome)));
    $("clear").hidden = !filtered;
    const all = groups.every((group) => group.open || group.head.hidden);
    $("fold").setAttribute("aria-expanded", String(all));
    $("fold").textContent = all ? "fold all" : "unfold all";
  }

  function buttonOf([test, column]) {
    const line = groupOf.get(test.file).rows.find((each) => each.test === test);
    return line ? line.cells[column + 1].firstChild : null;
  }

  function drawCurrent() {
    for (const old of table.querySelectorAll("[aria-current]")) old.removeAttribute("aria-current");
    const button = state.cell && buttonOf(state.cell);
    if (button) button.setAttribute("aria-current", "true");
  }

  /** What the user chose on a chip: it is there or not. */
  function flip(set, value) {
    if (!set.delete(value)) set.add(value);
  }

  function filter(change) {
    change();
    for (const group of groups) group.said = null;
    write();
    draw();
  }

  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("text").addEventListener("input", () => filter(() => { state.text = $("text").value; }));
  $("only-red").addEventListener("click", () => filter(() => { state.red = !state.red; }));
  $("only-changed").addEventListener("click", () => filter(() => { state.changed = !state.changed; }));
  $("clear").addEventListener("click", () => {
    filter(() => Object.assign(state, { red: false, changed: false, suites: new Set(), outcomes: new Set(), text: "" }));
    $("text").focus();
  });
  $("fold").addEventListener("click", () => {
    const open = $("fold").getAttribute("aria-expanded") !== "true";
    for (const group of groups) group.said = open;
    draw();
  });
  for (const chip of document.querySelectorAll("[data-suite]")) chip.addEventListener("click", () => filter(() => flip(state.suites, chip.dataset.suite)));
  for (const chip of document.querySelectorAll("[data-outcome]")) chip.addEventListener("click", () => filter(() => flip(state.outcomes, chip.dataset.outcome)));

  // -- keys in the matrix: one stop a file, arrows from cell to cell

  table.addEventListener("focusin", (event) => {
    if (event.target.matches("tbody.cells button.cell")) stopAt(event.target.closest("tbody"), event.target);
  });

  /** Make a cell the one that the tab key reaches of its file. */
  function stopAt(body, button) {
    for (const old of body.querySelectorAll('button.cell[tabindex="0"]')) old.tabIndex = -1;
    if (button) button.tabIndex = 0;
  }

  function beside(cell, key) {
    const line = cell.parentNode;
    if (key === "ArrowLeft" || key === "ArrowRight") {
      for (let next = cell; (next = key === "ArrowLeft" ? next.previousSibling : next.nextSibling);) if (next.querySelector("button")) return next;
      return null;
    }
    const lines = groups.filter((group) => group.open).flatMap((group) => group.rows.filter((each) => !each.hidden));
    const step = key === "ArrowUp" ? -1 : 1;
    for (let at = lines.indexOf(line) + step; lines[at]; at += step) if (lines[at].cells[cell.cellIndex].firstChild) return lines[at].cells[cell.cellIndex];
    return null;
  }

  table.addEventListener("keydown", (event) => {
    const cell = event.target.closest("tbody.cells td");
    if (!cell || !event.key.startsWith("Arrow")) return;
    event.preventDefault();
    const next = beside(cell, event.key);
    if (!next) return;
    next.firstChild.focus({ preventScroll: true });
    next.firstChild.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  table.addEventListener("click", (event) => {
    const button = event.target.closest("tbody.cells button.cell");
    if (button) open([button.closest("tr").test, button.closest("td").cellIndex - 1], button);
  });

  // -- one cell

  let before = null;

  async function copy(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", { value: text, readOnly: true });
      panel.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const label = button.textContent;
    button.textContent = "copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  }

  function part(title, text, wrap) {
    const button = make("button", { type: "button", className: "small", "aria-label": `Copy: ${title}` }, "copy");
    button.addEventListener("click", () => copy(text, button));
    return make("section", { className: "part" }, make("div", null, make("h3", null, title), button),
      make("pre", { className: wrap ? "wrap" : "", tabIndex: 0, "aria-label": title }, text));
  }

  function step(label, title, target) {
    const button = make("button", { type: "button", className: "small", title, "aria-label": title, disabled: !target }, label);
    if (target) button.addEventListener("click", () => open(target));
    return button;
  }

  function neighbours(cell) {
    const at = reds.findIndex((each) => each[0] === cell[0] && each[1] === cell[1]);
    const here = cell[0].number * data.columns.length + cell[1], place = (each) => each[0].number * data.columns.length + each[1];
    if (at >= 0) return [reds[at - 1], reds[at + 1]];
    return [reds.findLast((each) => place(each) < here), reds.find((each) => place(each) > here)];
  }

  function others([test, column]) {
    const list = make("div", { className: "others", "aria-label": "The same test on every kernel", role: "group" });
    data.columns.forEach((each, c) => {
      const is = outcome(test, c);
      if (!is) return;
      list.append(make("a", { href: `#cell=${encodeURIComponent(name([test, c]))}`, "aria-current": c === column ? "true" : undefined, title: `${each.kernel}: ${is.name}` },
        make("span", { className: `cell ${is.name}` }, is.sign), each.kernel));
    });
    return list;
  }

  function command([test, column]) {
    if (!test.command) return null;
    const { kernel, base } = data.columns[column];
    return part("Run this cell again", test.command.replace("@kernel@", () => (test.test.includes("::") ? kernel : base)), true);
  }

  function fill(cell) {
    const [test, column] = cell, is = outcome(...cell), { kernel, release, version, config } = data.columns[column];
    const [previous, next] = neighbours(cell);
    const close = make("button", { type: "button", className: "small", title: "Close (Escape)", "aria-label": "Close" }, "close");
    close.addEventListener("click", shut);
    const title = make("h2", { id: "panel-title", tabIndex: -1 }, make("span", { className: `cell ${is.name}`, "aria-hidden": "true" }, is.sign), `${is.name} on ${kernel}`);
    const facts = [release, version, config && `configuration ${config}`, `${(test.ms[column] / 1000).toFixed(2)} s`].filter(Boolean).join(" · ");
    const parts = (test.parts && test.parts[column]) || [];
    const console_ = is.console ? data.consoles[kernel] : undefined;
    panel.replaceChildren(
      make("div", { className: "panel-head" }, title, make("div", { className: "buttons" }, step("‹ red", "Previous red cell", previous), step("red ›", "Next red cell", next), close)),
      make("div", { className: "panel-body" }, make("p", { className: "test" }, test.test), make("p", { className: "note" }, facts),
        ...(test.changes.get(column) || []).map((line) => make("p", { className: "changed-line" }, `Changed against the baseline: ${line}`)),
        others(cell), command(cell),
        ...parts.map(([heading, text]) => part(heading, data.texts[text], !heading.endsWith("log"))),
        console_ === undefined ? null : part(`The end of ${kernel}'s console`, data.texts[console_]),
        parts.length || console_ !== undefined ? null : make("p", { className: "note" }, is.green ? "It passed, and there is no more to say." : "There is no text.")),
    );
    panel.scrollTop = 0;
    title.focus({ preventScroll: true });
  }

  function open(cell, from) {
    if (!panel.open) before = from || document.activeElement;
    else if (from) before = from;
    state.cell = cell;
    write();
    // who reads the list of red cells stays there
    show(table.contains(before));
  }

  function show(inMatrix) {
    draw();
    document.documentElement.classList.add("opened");
    if (!panel.open) if (narrow.matches) panel.showModal(); else panel.show();
    fill(state.cell);
    const button = buttonOf(state.cell);
    if (button && inMatrix) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function shut() {
    if (panel.open) panel.close();
  }

  panel.addEventListener("close", () => {
    document.documentElement.classList.remove("opened");
    const button = state.cell && buttonOf(state.cell);
    state.cell = null;
    write();
    drawCurrent();
    panel.replaceChildren();
    const back = before && before.isConnected && before !== document.body ? before : button;
    if (back) back.focus({ preventScroll: true });
  });
  panel.addEventListener("click", (event) => { if (event.target === panel && panel.matches(":modal")) shut(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && panel.open) { event.preventDefault(); shut(); } });
  narrow.addEventListener("change", shut);

  // a link to a cell keeps the filters, one to a part of the page keeps both
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest('a[href^="#"], svg a');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const target = link.getAttribute("href").slice(1);
    event.preventDefault();
    if (!target.startsWith("cell=")) { $(target).scrollIntoView(); return; }
    const cell = find(decodeURIComponent(target.slice(5)));
    if (cell) open(cell, panel.contains(link) ? null : link);
  });

  function follow() {
    read();
    if (state.cell) show(true); else if (panel.open) shut(); else draw();
  }
  addEventListener("hashchange", follow);

  document.documentElement.classList.add("scripted");
  $("filters").hidden = false;
  follow();
})();
