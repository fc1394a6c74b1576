// What the page knows, what its address says, and what the filters let through.
// The files of this folder are one script, in the order data, matrix, cell; report.py puts them into a function.

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const table = $("table");
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

const state = { red: false, changed: false, suites: new Set(), loaders: new Set(), outcomes: new Set(), text: "", cell: null };
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
  state.loaders = new Set(said.getAll("loader"));
  state.outcomes = new Set(said.getAll("outcome"));
  state.text = said.get("text") || "";
  state.cell = said.has("cell") ? find(said.get("cell")) : null;
}

function write() {
  const said = new URLSearchParams();
  if (state.red) said.set("failed", "1");
  if (state.changed) said.set("changed", "1");
  for (const suite of state.suites) said.append("suite", suite);
  for (const loader of state.loaders) said.append("loader", loader);
  for (const each of state.outcomes) said.append("outcome", each);
  if (state.text) said.set("text", state.text);
  if (state.cell) said.set("cell", name(state.cell));
  const hash = said.toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

// -- filters

const filtering = () => state.red || state.changed || state.suites.size > 0 || state.loaders.size > 0 || state.outcomes.size > 0 || state.text !== "";
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
    if (state.loaders.size && !state.loaders.has(test.loader)) return false;
    return words.every(({ word, texts, columns: named }) => named.has(column) || test.test.toLowerCase().includes(word) ||
      (test.parts && (test.parts[column] || []).some(([, text]) => texts.has(text))));
  };
}
