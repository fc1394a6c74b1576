"""The Markdown fits where it goes, and loses the least important first."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.report.markdown import LIMIT, markdown
from kernel_matrix.results.changes import Change, Kind
from kernel_matrix.results.document import Document
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from tests import result_sets

kernels = st.sampled_from(["5.10", "6.1", "7.3"])
text = st.text(max_size=20) | st.just("|`<@x> *_[]()\\" * 100)
cells = st.builds(Cell, kernels, text, st.sampled_from(Outcome), detail=text)
changes = st.builds(Change, st.sampled_from(Kind), kernels, text, text, text, text, st.booleans())
documents = st.builds(result_sets.document, st.lists(cells, max_size=8), st.lists(changes, max_size=8))


@given(documents, st.integers(0, 5000))
def test_no_result_set_is_longer_than_the_limit(document: Document, limit: int) -> None:
    assert len(markdown(document, limit)) <= limit
    assert len(markdown(document)) <= LIMIT


@given(documents)
def test_rows_of_the_table_have_as_many_fields_as_its_head(document: Document) -> None:
    rows = [line for line in markdown(document).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row.replace("\\\\", ""))) for row in rows} <= {len(document.columns) + 2}


@given(documents, st.integers(1500, 5000))
def test_what_is_left_out_is_counted(document: Document, limit: int) -> None:
    whole, cut = markdown(document), markdown(document, limit)
    rows = [sum(line.startswith(("- ", "| ")) for line in page.splitlines()) for page in (whole, cut)]
    assert rows[0] == rows[1] + sum(int(number) for number in re.findall(r"^… (\d+) more: ", cut, re.MULTILINE))


def test_many_red_cells_leave_room_for_gates_and_counts() -> None:
    """Ten thousand red cells do not displace the changes that gate, nor the counts."""
    red = [Cell("6.1", f"suites/{n % 9}.py::t{n}", Outcome.FAIL, detail=f"reason {n} " * 50) for n in range(10_000)]
    known = [Change(Kind.NEW, "6.1", cell.test, "", "fail") for cell in red]
    gating = Change(Kind.REGRESSION, "6.1", red[-1].test, "pass", "fail", gates=True)
    page = markdown(result_sets.document(red, [*known, gating]))
    assert len(page) <= 65_000
    lines = page.splitlines()
    assert lines[0] == "# Kernel matrix: 10000 fail"
    first = next(line for line in lines if line.startswith("- "))
    assert first == "- **regression**: 6.1 suites/0.py::t9999: pass → fail"
    assert sum(line.startswith("| suites/") for line in lines) == 9
    assert "… 10000 more: `matrix.html` and `results.jsonl` have all" in lines
    assert re.search(r"^… 9\d{3} more: ", page, re.MULTILINE)


def test_the_order_is_gating_changes_red_cells_counts() -> None:
    page = markdown(result_sets.full())
    places = [
        page.index(head) for head in ("## Changes: 20, 5 of them red", "**regression**", "## Red: 9", "## By file")
    ]
    assert places == sorted(places)
    red = next(line for line in page.splitlines() if line.startswith("- ✗ fail")).replace("\\", "")
    assert red.startswith("- ✗ fail 7.3, 7.1, 7.2 suites/xdp/test_frames.py::test_vlan_frame_is_counted_by")
    assert "[vlan-7]: AssertionError: assert Counters(packets=500, bytes=31000, vlan=0) == " in red


def test_markup_and_mentions_are_text() -> None:
    cell = Cell("6.1", "a.py::t[<b>|`x`]", Outcome.FAIL, detail="@somebody &lt; #1 *x*")
    page = markdown(result_sets.document([cell]))
    assert "\\<b\\>\\|\\`x\\`" in page
    assert "@\u200bsomebody \\&lt; \\#1 \\*x\\*" in page


def test_no_change_and_no_cell_are_said_in_a_line() -> None:
    page = markdown(result_sets.document([]))
    assert "# Kernel matrix: no cells" in page
    assert "Nothing has changed against the baseline." in page
    assert "## Red" not in markdown(replace(result_sets.full(red=False), changes=()))
