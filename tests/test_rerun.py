"""From a cell of a report to the node id that repeats it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_matrix.commands.in_guests import rerun
from kernel_matrix.guest.pytest.plugin import repeated
from kernel_matrix.plan import selection
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes import expect
from tests.projects import HERE, below

KERNELS = ("6.1", "6.1+lockdown_integrity", "6.12")
CASES = "tests/faults/cases/case_panic.py"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["a.py::test[6.1-p]"], "a.py::test[6.1-p]"),
        (["a.py::test[6.1-p-#3]"], "a.py::test[6.1-p]"),
        (["a.py::test[6.12-#3]"], "a.py::test[6.12]"),
        (["6.12", "a.py::test"], "a.py::test[6.12]"),
        (["6.12", "a.py::test[#2]"], "a.py::test[6.12]"),
        (["6.1 a.py::test[two words]"], "a.py::test[6.1-two words]"),
        (["6.1+lockdown_integrity", "a.py::test[p]"], "a.py::test[6.1+lockdown_integrity-p]"),
    ],
)
def test_a_cell_is_found_however_a_report_names_it(words: list[str], wanted: str) -> None:
    assert rerun.node_id(words, KERNELS) == wanted


@pytest.mark.parametrize("words", [["a.py::test"], ["6.1", "boot"], ["9.9", "a.py::test"], ["6.1"], ["./loader x"]])
def test_what_is_no_cell_is_refused_in_a_line(words: list[str]) -> None:
    with pytest.raises(ManifestError, match=r"is no cell: tests/x\.py::test\[6\.1-p\], or 6\.1 ") as refusal:
        rerun.node_id(words, KERNELS)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("test", ["a.py::test", "a.py::test[p]", "a.py::test[p-q]"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_node_id_splits_into_the_test_and_its_kernel(test: str, kernel: str) -> None:
    """Joining them gives the node id again."""
    assert expect.split_nodeid(expect.join_nodeid(test, kernel), kernel) == test


def test_a_test_that_is_not_there_is_found_out_on_the_host() -> None:
    rerun.check(HERE, f"{CASES}::test_panic[6.1]", KERNELS)
    with pytest.raises(ManifestError, match="there is no such test"):
        rerun.check(HERE, f"{CASES}::test_panic[6.1-p]", KERNELS)
    with pytest.raises(ManifestError, match="no such file below"):
        rerun.check(HERE, "tests/none.py::test_panic[6.1]", KERNELS)


def test_a_file_that_cannot_be_imported_is_no_missing_test(tmp_path: Path) -> None:
    """Asked for within the project, whose pytest it is."""
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tmp_path / "test_x.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(HarnessError, match="No module named 'nothing_of_that_name'"):
        selection.collects(below(tmp_path), "test_x.py::test_y[6.1]", "6.1")


def test_repetitions_have_node_ids_of_their_own() -> None:
    assert repeated("a.py::test[6.1]", 2) == ["a.py::test[6.1-#1]", "a.py::test[6.1-#2]"]
    assert repeated("a.py::test[6.1]", 1) == ["a.py::test[6.1]"]
    assert repeated("a.py", 2) == ["a.py"]
