"""The report is one file that fetches nothing, says all without JavaScript, and shows hostile text as text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_matrix.report import html_page, page_data
from kernel_matrix.results.changes import Change, Kind
from kernel_matrix.results.document import Document
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.shared.outcomes.expect import rerun
from tests import result_sets

HOSTILE = "</script><script>alert(1)</script><!-- \x1b[31m&amp;\x00 \u2028 🐛 \ud83d '\" <img src=x onerror=alert(1)>"
text = st.text(max_size=30) | st.just(HOSTILE) | st.text(st.sampled_from("</script><!-- -->]]>&lt;\"'`{{}}%\\u"))
cells = st.builds(Cell, st.sampled_from(["5.10", HOSTILE]), text, st.sampled_from(Outcome), detail=text, log=text)
changes = st.builds(Change, st.sampled_from(Kind), st.just("5.10"), text, text, text, text, st.booleans())


class Page(HTMLParser):
    """What a browser without JavaScript makes of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._within: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "input"}:
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._within.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._within[-1:] == ["script"]:
            self.scripts.append(data)
        elif self._within[-1:] != ["style"]:
            self.text += data

    @property
    def data(self) -> Any:  # noqa: ANN401 - JSON
        """The page's data, as its script reads it."""
        return json.loads(self.scripts[0])

    @property
    def links(self) -> list[str]:
        return [str(attributes["href"]) for tag, attributes in self.elements if tag == "a"]

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def page(document: Document, **consoles: str) -> Page:
    html = html_page.html(document, {kernel.replace("_", "."): text for kernel, text in consoles.items()})
    html.encode("utf-8")
    return Page(html)


@settings(max_examples=40)
@given(st.lists(cells, max_size=5), st.lists(changes, max_size=4))
def test_hostile_text_makes_no_element_script_or_attribute(came: list[Cell], changed: list[Change]) -> None:
    judged = {(cell.kernel, cell.test): cell for cell in came}.values()
    rendered = page(result_sets.document(judged, changed))
    assert len(rendered.scripts) == 2
    assert not rendered.tags & {"img", "iframe", "object", "embed", "link", "base"}
    assert not any(name.startswith("on") for _, attributes in rendered.elements for name in attributes)
    assert sum(len(file["tests"]) for file in rendered.data["files"]) == len({cell.test for cell in judged})
    assert all(link.startswith("#") for link in rendered.links)


def test_nothing_is_fetched_and_the_policy_says_so() -> None:
    html = html_page.html(result_sets.full())
    rendered = Page(html)
    assert not {"src", "srcset", "action", "data", "poster", "ping"} & {
        n for _, attributes in rendered.elements for n in attributes
    }
    assert not re.search(r"url\(|@import|https?:|fetch\(|XMLHttp|import\(", html)
    policy = next(meta["content"] for tag, meta in rendered.elements if tag == "meta" and "http-equiv" in meta) or ""
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; ")


def test_without_javascript_the_page_has_the_essentials() -> None:
    """The verdict, the changes, the red cells and the counts."""
    document = result_sets.full()
    rendered = page(document)
    words = " ".join(rendered.text.split())
    assert "9 red cells of 7,800 in 6 tests on 6 kernels, of 600 tests on 13 kernels and 13 variants of them" in words
    assert document.accelerator in words
    assert document.notes[0] in words
    assert (
        "regression suites/xdp/test_frames.py::test_vlan_frame_is_counted_by_its_wire_length[vlan-7] pass → fail"
        in words
    )
    assert words.index("regression") < words.index("cost grew") < words.index("kernel drifted") < words.index("Red 9")
    assert rendered.text.count(result_sets.DIAGNOSIS) == 1, "once for both kernels"
    for part in (result_sets.FAILURE, result_sets.LOG, result_sets.VERIFIER, result_sets.DIAGNOSIS):
        assert part in rendered.text
    row = words[words.index("suites/xdp/test_frames.py 60") :]
    # 13 kernels: of the first four the last has a failure
    assert row.startswith("suites/xdp/test_frames.py 60 60 60 60 1✗\ufe0e 59 60 60")


def test_a_link_of_the_changes_leads_to_the_red_cells_text() -> None:
    rendered = page(result_sets.full())
    places = {attributes.get("id") for _, attributes in rendered.elements}
    red = [link for link in rendered.links if "test_vlan" in link and "7.3" in link]
    assert len(red) >= 2, "among the changes and among the red cells"
    assert {link[1:] for link in red} <= places


def test_a_green_run_says_it_in_a_line_and_stays_small() -> None:
    document = result_sets.full(red=False)
    html = html_page.html(document)
    words = " ".join(Page(html).text.split())
    assert len(document.cells) > 7_500
    assert len(html.encode()) < 1_500_000
    assert "All 7,800 cells green" in words
    assert "Nothing has changed against the baseline." in words
    assert 'id="red"' not in html


def test_the_data_has_every_cell_with_outcome_time_and_texts() -> None:
    document = result_sets.full(4, 100)
    data = page(document).data
    names = [column["kernel"] for column in data["columns"]]
    shown = {}
    for test in (test for file in data["files"] for test in file["tests"]):
        for number, code in enumerate(test["outcomes"]):
            if code != " ":
                parts = {title: data["texts"][index] for title, index in test.get("parts", {}).get(str(number), [])}
                row = (data["outcomes"][code]["name"], test["ms"][number], parts)
                shown[names[number], test["test"]] = row
    assert shown == {
        (cell.kernel, cell.test): (
            cell.outcome.value,
            round(cell.duration * 1000),
            {title: text for title, text in page_data.parts(cell) if text},
        )
        for cell in document.cells
    }


def test_a_green_cell_shows_what_its_test_observed() -> None:
    cell = Cell("6.1", "a.py::t", Outcome.PASS, observed=(("left", "nothing"), ("path", "link")))
    data = page(result_sets.document([cell])).data
    ((title, number),) = data["files"][0]["tests"][0]["parts"]["0"]
    assert (title, data["texts"][number]) == ("Observed", "left: nothing\npath: link")


@pytest.mark.parametrize("test", ["suites/a.py::test_x", "suites/a.py::test_x[$1 'x']", "suites/a.py"])
@pytest.mark.parametrize("kernel", ["6.1", "6.12-rt", "6.1+lockdown_integrity"])
def test_the_page_makes_the_same_command_of_its_template(test: str, kernel: str) -> None:
    data = page(result_sets.document([Cell(kernel, test, Outcome.PASS)])).data
    (column,) = data["columns"]
    name = column["kernel"] if "::" in test else column["base"]
    assert data["files"][0]["tests"][0]["command"].replace("@kernel@", name) == rerun(test, kernel)


def test_a_cell_that_is_no_test_has_no_command() -> None:
    assert (
        "command" not in page(result_sets.document([Cell("6.1", "boot", Outcome.CRASH)])).data["files"][0]["tests"][0]
    )


def test_megabytes_are_cut_and_the_page_says_who_has_them() -> None:
    red = [Cell("6.1", f"a.py::t{n}", Outcome.FAIL, detail=f"{n}" + "x" * 2_000_000) for n in range(3)]
    html = html_page.html(result_sets.document(red))
    assert len(html) < 1_000_000
    assert "1,900,001 characters are left out here: results.jsonl has the whole text" in html


def test_thousands_of_failures_do_not_make_the_page_endless() -> None:
    red = [Cell("6.1", f"a.py::t{n}", Outcome.FAIL, detail=f"{n} " + "x" * 9000) for n in range(3000)]
    html = html_page.html(result_sets.document(red))
    assert len(html) < 20_000_000
    assert "2,800 more: matrix.json has all of them" in html
    assert "3,000 red cells of 3,000" in html


def test_equal_texts_are_carried_once() -> None:
    red = [Cell("6.1", f"a.py::t{n}", Outcome.FAIL, detail="the same " * 1000) for n in range(500)]
    assert page(result_sets.document(red)).data["texts"] == ["the same " * 1000]


def test_the_end_of_a_console_explains_what_did_not_run() -> None:
    data = page(result_sets.document([Cell("6.1", "a.py::t", Outcome.NOTRUN)]), **{"6_1": "\x1b[0mpanic"}).data
    assert data["texts"][data["consoles"]["6.1"]] == "panic"
    names = [outcome["name"] for outcome in data["outcomes"].values() if outcome["console"]]
    assert sorted(names) == ["crash", "lost", "notrun"]


@pytest.mark.parametrize(
    ("cells", "changes", "status", "green", "text"),
    [
        ([Outcome.PASS], [], 0, True, "1 cell green"),
        ([Outcome.PASS, Outcome.FAIL], [], 1, False, "1 red cell of 2"),
        (
            [Outcome.PASS],
            [Change(Kind.GONE, "6.1", "t", "pass", "", gates=True)],
            1,
            False,
            "1 change against the baseline",
        ),
        ([Outcome.LOST], [], 3, False, "No verdict: 1 red cell of 1"),
        ([Outcome.PASS], [], 2, False, "Interrupted"),
        ([Outcome.PASS], [], 3, False, "Exit status 3"),
        ([], [], 3, False, "No cells"),
        ([], [], 0, True, "No cells"),
    ],
)
def test_the_verdict_is_the_exit_status_in_words(
    cells: list[Outcome], changes: list[Change], status: int, *, green: bool, text: str
) -> None:
    came = [Cell("6.1", f"t{number}", outcome) for number, outcome in enumerate(cells)]
    verdict = html_page.verdict(result_sets.document(came, changes, exit_status=status))
    assert (verdict.green, verdict.text) == (green, text)


def test_a_suite_is_the_folder_below_that_of_all_tests() -> None:
    assert page_data.suite_of("suites/xdp/test_frames.py") == page_data.suite_of("tests/xdp/test_frames.py") == "xdp"
    assert page_data.suite_of("suites/xdp/deep/test_frames.py") == "xdp"
    assert (
        page_data.suite_of("boot") == page_data.suite_of("./loader a/b") == page_data.suite_of("suites/a.py") == "other"
    )
