// One cell and its texts, and the links that lead to it.

// -- one cell

let before = null;

async function copy(text, button) {
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { value: text, readOnly: true });
    panel.append(area);
    area.select();
    copied = document.execCommand("copy");
    area.remove();
  }
  const label = button.textContent;
  button.textContent = copied ? "copied" : "not copied";
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
  if (!panel.open) return;
  panel.close();
  closed();
}

/** Put things back at once: the dialog's own event comes later, and the next key may be quicker. */
function closed() {
  if (panel.open || !document.documentElement.classList.contains("opened")) return;
  document.documentElement.classList.remove("opened");
  const button = state.cell && buttonOf(state.cell);
  state.cell = null;
  write();
  drawCurrent();
  panel.replaceChildren();
  const back = before && before.isConnected && before !== document.body ? before : button;
  if (back) back.focus({ preventScroll: true });
}

panel.addEventListener("close", closed);
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
