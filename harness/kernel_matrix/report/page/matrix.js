// The matrix: files that unfold, filters, arrow keys.

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

function row(test, number, all) {
  const before = all[number - 1];
  const colons = test.test.indexOf("::"), short = colons < 0 ? test.test : test.test.slice(colons + 2);
  const bracket = short.includes("[") ? short.indexOf("[") : short.length;
  const parameters = bracket < short.length ? make("span", { className: "parameters" }, short.slice(bracket)) : null;
  const head = short.slice(0, bracket), again = before && before.test.split("::")[1]?.startsWith(`${head}[`);
  const label = make("span", { className: `label test${again ? " again" : ""}`, title: test.test }, make("span", null, head), parameters);
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
  for (const chip of document.querySelectorAll("[data-loader]")) chip.setAttribute("aria-pressed", String(state.loaders.has(chip.dataset.loader)));
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
  filter(() => Object.assign(state, { red: false, changed: false, suites: new Set(), loaders: new Set(), outcomes: new Set(), text: "" }));
  $("text").focus();
});
$("fold").addEventListener("click", () => {
  const open = $("fold").getAttribute("aria-expanded") !== "true";
  for (const group of groups) group.said = open;
  draw();
});
for (const chip of document.querySelectorAll("[data-suite]")) chip.addEventListener("click", () => filter(() => flip(state.suites, chip.dataset.suite)));
for (const chip of document.querySelectorAll("[data-loader]")) chip.addEventListener("click", () => filter(() => flip(state.loaders, chip.dataset.loader)));
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
