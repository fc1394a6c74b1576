"""The report in a real browser: it unfolds, filters, opens cells, and is read with a keyboard and on a phone.

The README's picture: ``REPORT_PICTURE=docs/report.png python -m pytest tests/test_report_in_browser.py -k picture``;
its colours are then reduced to 256.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from kernel_matrix.report import html_page
from kernel_matrix.results.document import Document
from kernel_matrix.shared import hints
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.shared.outcomes.expect import rerun
from tests import result_sets

DESKTOP, PHONE = (1440, 900), (375, 800)
VLAN = "suites/xdp/test_frames.py::test_vlan_frame_is_counted_by_its_wire_length[vlan-7]"
CONNECT = "suites/sockets/test_connect.py::test_a_refused_connect_has_its_errno[native]"


class Reader:
    """Somebody who reads a report."""

    def __init__(self, browser: Chrome, folder: Path) -> None:
        self.browser = browser
        self._folder = folder

    def write(self, name: str, document: Document, **consoles: str) -> None:
        html = html_page.html(document, {kernel.replace("_", "."): text for kernel, text in consoles.items()})
        (self._folder / f"{name}.html").write_text(html, encoding="utf-8")

    def open(self, name: str, fragment: str = "", size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> None:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.browser.get("about:blank")
        self.browser.get((self._folder / f"{name}.html").as_uri() + fragment)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the page says
        return self.browser.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def click(self, selector: str) -> None:
        self.one(selector).click()

    @property
    def address(self) -> str:
        return str(self.run("return location.hash"))

    @property
    def shown(self) -> str:
        return self.one("#shown").text

    @property
    def rows(self) -> int:
        script = "return [...document.querySelectorAll('tr.row')].filter((row) => row.checkVisibility()).length"
        return int(self.run(script))

    @property
    def focus(self) -> WebElement:
        return self.browser.switch_to.active_element

    def part(self, title: str) -> str:
        return self.one(f'#panel pre[aria-label="{title}"]').text


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in programs.items():
        if path is None:
            pytest.fail(f"{name} is missing: run `nox -s bootstrap`", pytrace=False)
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs["chromium"])
    # without its sandbox it runs as root too; what it opens is our own
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(programs["chromedriver"]))
    page_reader = Reader(browser, tmp_path_factory.mktemp("report"))
    page_reader.write("red", result_sets.full(), **{"6_12-cloud": "the last words of the guest"})
    page_reader.write("green", result_sets.full(red=False))
    tests = ("test_frame[libbpf-native]", "test_frame[aya-native]", "test_zero[aya]", "test_quiet", "test_q[ayay]")
    cells = [Cell("6.1", f"suites/xdp/test_x.py::{test}", Outcome.PASS) for test in tests]
    page_reader.write("loaders", replace(result_sets.document(cells), loaders=("libbpf", "aya")))
    yield page_reader
    browser.quit()


@pytest.fixture(autouse=True)
def no_complaint(reader: Reader) -> Iterator[None]:
    """A script that fails, or a resource that the policy keeps out, is on the browser's console."""
    yield
    assert reader.browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_red_files_are_unfolded_and_others_open_on_a_click(reader: Reader) -> None:
    reader.open("red")
    first, *_ = toggles = reader.all("button.toggle")
    unfolded = [toggle.text.split()[0] for toggle in toggles if toggle.get_attribute("aria-expanded") == "true"]
    names = [
        f"suites/{name}.py"
        for name in ("execve/test_events", "sockets/test_connect", "xdp/test_frames", "xdp/test_modes")
    ]
    assert unfolded == names
    before = reader.rows
    first.click()
    assert (first.get_attribute("aria-expanded"), reader.rows) == ("true", before + 60)
    first.click()
    assert reader.rows == before
    unfold = "document.getElementById('fold').click(); document.body.offsetHeight"
    took = reader.run(f"const start = performance.now(); {unfold}; return performance.now() - start")
    assert len(reader.all("tbody.cells tr.row")) == 600
    assert len(reader.all("tbody.cells button.cell")) == 7_800
    print(f"unfolded in {took:.0f} ms")


def test_a_green_run_is_folded(reader: Reader) -> None:
    reader.open("green")
    assert reader.all("tbody.cells tr.row") == []
    assert "All 7,800 cells green" in reader.one("h1").text


def test_a_cell_opens_with_its_texts_and_escape_closes_it(reader: Reader) -> None:
    """An open cell has its texts and the command that repeats it."""
    reader.open("red", "#failed=1&suite=sockets")
    cell = reader.one('button[aria-label="5.10: error"]')
    cell.click()
    assert reader.one("#panel-title").text == "E\ufe0e\nerror on 5.10"
    assert reader.part("Run this cell again") == rerun(CONNECT, "5.10")
    assert reader.part("Diagnosis") == result_sets.DIAGNOSIS
    assert reader.part("Failure") == result_sets.NO_FIELD
    assert reader.part("Verifier log") == result_sets.VERIFIER
    assert len(reader.all("#panel .part button")) == 4
    reader.press(Keys.ESCAPE)
    assert not reader.one("#panel").is_displayed()
    assert reader.focus == cell
    assert reader.address == "#failed=1&suite=sockets"


@pytest.mark.parametrize(("works", "label"), [(True, "copied"), (False, "not copied")])
def test_what_is_copied_is_the_text_and_what_is_not_is_said(reader: Reader, *, works: bool, label: str) -> None:
    reader.open("red", "#failed=1&suite=sockets")
    copying = "document.execCommand = () => { window.copied = document.activeElement.value; return works }"
    reader.run(f"const works = arguments[0]; {copying}", works)
    reader.run("Object.defineProperty(navigator, 'clipboard', {value: {writeText: () => Promise.reject()}})")
    reader.click('button[aria-label="5.10: error"]')
    reader.click('button[aria-label="Copy: Verifier log"]')
    WebDriverWait(reader.browser, 5).until(lambda _: reader.run("return window.copied"))
    assert reader.run("return window.copied") == result_sets.VERIFIER
    button = reader.one('button[aria-label="Copy: Verifier log"]')
    WebDriverWait(reader.browser, 5).until(lambda _: button.text != "copy")
    assert button.text == label


def test_a_guest_that_was_lost_is_explained_by_its_console(reader: Reader) -> None:
    reader.open("red", "#outcome=lost")
    reader.click("tbody.cells button.lost")
    assert reader.part("The end of 6.12-cloud's console") == "the last words of the guest"


def test_the_keyboard_is_enough(reader: Reader) -> None:
    reader.open("red", "#failed=1&suite=xdp")
    toggle = reader.all("button.toggle")[-2]
    reader.run("arguments[0].focus()", toggle)
    reader.press(Keys.TAB)
    assert reader.focus.get_attribute("aria-label") == "5.10: pass", "one stop a file"
    reader.press(Keys.ARROW_RIGHT * 3)
    assert reader.focus.get_attribute("aria-label") == "7.3: fail, changed"
    reader.press(Keys.ENTER)
    assert reader.one("#panel-title").text.endswith("fail on 7.3")
    assert reader.focus.get_attribute("id") == "panel-title"
    reader.press(Keys.ESCAPE)
    reader.press(Keys.ARROW_DOWN)
    assert reader.focus.get_attribute("aria-label") == "7.3: pass", "the next file"
    reader.press(Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.ENTER)
    assert reader.one("#panel-title").text.endswith("pass on 6.12")


def test_filters_combine_and_say_what_they_show(reader: Reader) -> None:
    reader.open("red")
    assert reader.shown == "7,800 cells in 600 tests."
    reader.click("#only-red")
    assert (reader.shown, reader.rows) == ("Showing 9 of 7,800 cells, in 6 of 600 tests.", 6)
    reader.click("#only-changed")
    assert reader.shown == "Showing 4 of 7,800 cells, in 2 of 600 tests."
    reader.click('[data-outcome="crash"]')
    assert reader.shown == "Showing 1 of 7,800 cells, in 1 of 600 tests."
    reader.click('[data-outcome="fail"]')
    assert reader.shown == "Showing 4 of 7,800 cells, in 2 of 600 tests."
    reader.one("#text").send_keys("31000 7.2")
    assert reader.shown == "Showing 1 of 7,800 cells, in 1 of 600 tests.", "a failure's text and a kernel"
    assert reader.address == "#failed=1&changed=1&outcome=crash&outcome=fail&text=31000+7.2"
    reader.click("#clear")
    assert (reader.shown, reader.address) == ("7,800 cells in 600 tests.", "")
    reader.click('[data-suite="variants"]')
    assert reader.shown == "Showing 780 of 7,800 cells, in 60 of 600 tests."
    reader.one("#text").send_keys("no such text")
    assert (reader.shown, reader.rows) == ("Showing 0 of 7,800 cells, in 0 of 600 tests.", 0)


def test_the_matrix_is_filtered_by_loader(reader: Reader) -> None:
    reader.open("loaders")
    reader.click('[data-loader="aya"]')
    assert (reader.shown, reader.address) == ("Showing 2 of 5 cells, in 2 of 5 tests.", "#loader=aya")
    reader.click('[data-loader="libbpf"]')
    assert reader.shown == "Showing 3 of 5 cells, in 3 of 5 tests."
    reader.open("loaders", "#loader=libbpf")
    assert reader.one('[data-loader="libbpf"]').get_attribute("aria-pressed") == "true"
    assert reader.shown == "Showing 1 of 5 cells, in 1 of 5 tests."
    reader.open("red")
    assert reader.all("[data-loader]") == []


def test_the_address_keeps_the_cell_and_the_filters(reader: Reader) -> None:
    reader.open("red", "#failed=1&suite=xdp")
    reader.click('button[aria-label="7.3: fail, changed"]')
    address = reader.address
    reader.open("red", address)
    assert reader.one("#panel-title").text.endswith("fail on 7.3")
    assert reader.one('[aria-current="true"].cell').get_attribute("aria-label") == "7.3: fail, changed"
    assert reader.one("#only-red").get_attribute("aria-pressed") == "true"
    assert reader.shown == "Showing 6 of 7,800 cells, in 4 of 600 tests."
    reader.open("red", "#" + html_page.fragment("5.10+lockdown_integrity", result_sets.full().cells[-1].test))
    assert reader.one("#panel-title").text.endswith("on 5.10+lockdown_integrity")


def test_changes_and_red_cells_lead_to_their_cells(reader: Reader) -> None:
    reader.open("red")
    reader.click("#changes a.to")
    assert reader.one("#panel .test").text == VLAN
    assert reader.one("#panel .changed-line").text == "Changed against the baseline: regression: pass → fail"
    reader.click('button[aria-label="Next red cell"]')
    assert reader.one("#panel-title").text.endswith("fail on 7.1")
    reader.click("#panel .others a")
    assert reader.one("#panel-title").text.endswith("pass on 5.10")
    reader.click("#red summary")
    assert result_sets.PANIC in reader.one("#red pre").text
    reader.click('nav a[href="#costs"]')
    assert "cell=" in reader.address, "a part of the page is no reason to forget the cell"


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_scrolls_the_table_and_shows_cells_as_sheets(reader: Reader, *, dark: bool) -> None:
    """On a phone only the table scrolls sideways, and a cell opens as a sheet."""
    reader.open("red", size=PHONE, dark=dark)
    assert reader.run("return document.documentElement.scrollWidth") == PHONE[0]
    assert reader.run("const box = document.querySelector('.scroll'); return box.scrollWidth > box.clientWidth")
    column = reader.one("tbody.file th")
    left = column.rect["x"]
    reader.run("document.querySelector('.scroll').scrollLeft = 300")
    assert column.rect["x"] == left, "the tests' names stay"
    reader.click("#red a.to")
    sheet = reader.run("return document.getElementById('panel').getBoundingClientRect().toJSON()")
    assert (sheet["left"], sheet["right"], sheet["bottom"]) == (0, *PHONE)
    assert sheet["top"] > PHONE[1] / 10
    assert reader.run("return document.documentElement.scrollWidth") == PHONE[0]
    reader.press(Keys.ESCAPE)
    assert not reader.one("#panel").is_displayed()


#: the contrast of text to what is behind it, as WCAG 2 defines it
CONTRAST = """
const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
const light = (colour) => {
  const [red, green, blue] = colour.match(/[\\d.]+/g).map((each) => linear(each / 255));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const behind = (node) => {
  const colour = getComputedStyle(node).backgroundColor;
  return colour === "rgba(0, 0, 0, 0)" ? behind(node.parentElement) : colour;
};
const says = (node) => [...node.childNodes].some((each) => each.nodeType === Node.TEXT_NODE && each.data.trim());
const found = {};
for (const node of document.querySelectorAll("body *")) {
  if (!says(node) || !node.checkVisibility() || node.closest("svg, .dim, :disabled")) continue;
  const [less, more] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => a - b);
  const ratio = (more + 0.05) / (less + 0.05);
  if (ratio < 4.5) found[`${node.tagName}.${node.className}`] = ratio.toFixed(2);
}
return [found, light(behind(document.querySelector("h1")))];
"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_has_enough_contrast(reader: Reader, *, dark: bool) -> None:
    cell = html_page.fragment("6.12-cloud", VLAN)
    reader.open("red", f"#text=test_every&{cell}", dark=dark)
    failures, paper = reader.run(CONTRAST)
    assert failures == {}
    assert (paper < 0.05) if dark else (paper > 0.9)


def test_hostile_text_is_shown_and_does_nothing(reader: Reader) -> None:
    hostile = "</script><script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>\x1b[31m&lt;"
    cell = Cell(f"6.1{hostile[:20]}", f"suites/x.py::t[{hostile}]", Outcome.FAIL, detail=hostile)
    reader.write("hostile", result_sets.document([cell]))
    reader.open("hostile")
    reader.click("tbody.cells button.fail")
    assert reader.part("Failure") == hostile.replace("\x1b[31m", "")
    assert reader.run("return window.hurt") is None


def test_a_run_without_a_cell_is_a_page_too(reader: Reader) -> None:
    reader.write("empty", result_sets.document([]))
    reader.open("empty")
    assert "No cells" in reader.one("h1").text


LOADERS = ("libbpf", "aya", "cilium")


def with_loaders(document: Document) -> Document:
    """Return the result set with a loader as the first parameter of the tests that load programs."""

    def named(test: str) -> str:
        head, bracket, parameters = test.partition("[")
        loads = head.startswith(("suites/execve", "suites/sockets", "suites/xdp")) and bracket
        return f"{head}[{LOADERS[len(parameters) % len(LOADERS)]}-{parameters}" if loads else test

    cells = tuple(replace(cell, test=named(cell.test)) for cell in document.cells)
    changes = tuple(replace(change, what=named(change.what)) for change in document.changes)
    return replace(document, cells=cells, changes=changes, loaders=LOADERS)


if "REPORT_PICTURE" in os.environ:

    def test_picture(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes the README's picture: a tool, and no test that is skipped."""
        monkeypatch.setenv(hints.NOX_VARIABLE, "1")
        document = with_loaders(result_sets.full(tests=250, variants=False))
        reader.write("picture", replace(document, changes=document.changes[:6]))
        opened = html_page.fragment("5.10", CONNECT.replace("[", "[aya-"))
        reader.open("picture", f"#failed=1&{opened}", size=(1480, 1370))
        reader.run("scrollTo(0, 0)")
        assert reader.browser.save_screenshot(os.environ["REPORT_PICTURE"])
