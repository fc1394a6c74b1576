"""Showing the capability tables and rewriting them from what guests found."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from kernel_matrix.commands import capability_view
from kernel_matrix.results import document
from kernel_matrix.shared import capability_table, wire
from kernel_matrix.shared.capability_table import BASELINE, Context, Table
from kernel_matrix.shared.cells import Cell, Outcome
from kernel_matrix.shared.errors import HarnessError, ManifestError
from tests import result_sets

_ROOT = Path(__file__).parents[1]


def _table(minimum: str) -> Table:
    return Table(
        {"perf_event_paranoid": 3},
        ("perf_event_paranoid=2",),
        {
            "kprobe_execve attach perf": {
                Context("root"): "SYS_ADMIN",
                Context("root", "perf_event_paranoid=2"): minimum,
            }
        },
        {"array map_create": {Context("root"): "EPERM | BPF ok"}},
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(_ROOT / "vmimages", tmp_path / "vmimages")
    (tmp_path / "baselines").mkdir()
    (tmp_path / BASELINE).write_text(capability_table.write({"6.1": _table("PERFMON | SYS_ADMIN")}, ["6.1"]))
    return tmp_path


def _shown(root: Path, *names: str, cells: bool = False) -> str:
    screen = Console(width=120)
    with screen.capture() as capture:
        for table in capability_view.show(root, names, cells=cells):
            screen.print(table)
    return capture.get()


def test_a_person_reads_the_sets_and_the_sysctl_they_are_for(root: Path) -> None:
    text = _shown(root, "6.1")
    assert "kernel.perf_event_paranoid=3" in text
    assert "PERFMON | SYS_ADMIN" in text
    assert "perf_event_paranoid=2" in text
    assert "array map_create" not in text
    assert "EPERM | BPF ok" in _shown(root, cells=True)


def test_a_kernel_that_is_not_recorded_is_told_how(root: Path) -> None:
    with pytest.raises(ManifestError, match=r"--update --kernel 7\.3"):
        _shown(root, "7.3")


def test_that_no_kernel_is_recorded_is_an_error(root: Path) -> None:
    (root / BASELINE).unlink()
    with pytest.raises(ManifestError, match=r"^baselines/capabilities\.json has no kernel: "):
        _shown(root)


def _run(root: Path, found: dict[str, Table], status: int, asked: list[str]) -> int:
    folder = root / "results" / "capabilities"
    folder.mkdir(parents=True)
    for kernel, table in found.items():
        (folder / f"{kernel}.json").write_text(json.dumps(table.to_json()))
    assert asked == ["--kernel", "6.1", "--kernel", "7.3", capability_view.MEASURING, capability_view.EVERY_CELL]
    return status


def test_what_an_update_asks_for_is_there() -> None:
    for name in (capability_view.MEASURING, capability_view.EVERY_CELL):
        assert (_ROOT / name).is_file()


def test_an_update_rewrites_what_was_measured_and_says_what_changed(root: Path) -> None:
    found = {"6.1": _table("SYS_ADMIN"), "7.3": _table("SYS_ADMIN")}
    changes = capability_view.update(root, ["6.1", "7.3"], lambda asked: _run(root, found, 0, asked), root / "results")
    assert changes == [
        "6.1 kprobe_execve attach perf (root, perf_event_paranoid=2): minimal set gone: {PERFMON}",
        "7.3: new",
    ]
    assert list(capability_view.load(root)) == ["6.1", "7.3"]


def test_a_kernel_that_was_not_measured_keeps_its_entry_and_is_an_error(root: Path) -> None:
    before = (root / BASELINE).read_text()
    with pytest.raises(HarnessError, match=r"not measured: 6\.1, 7\.3; the run ended with status 3"):
        capability_view.update(root, ["6.1", "7.3"], lambda asked: _run(root, {}, 3, asked), root / "results")
    assert (root / BASELINE).read_text() == before


@pytest.mark.parametrize("status", [2, 3, 4])
def test_what_an_earlier_run_has_measured_is_not_recorded(root: Path, status: int) -> None:
    """Its results lie there when this one ends before it has any."""
    before = (root / BASELINE).read_text()
    found = {"6.1": _table("SYS_ADMIN"), "7.3": _table("SYS_ADMIN")}
    with pytest.raises(HarnessError, match=rf"^not measured: 6\.1, 7\.3; the run ended with status {status}$"):
        capability_view.update(root, ["6.1", "7.3"], lambda asked: _run(root, found, status, asked), root / "results")
    assert (root / BASELINE).read_text() == before


def test_a_kernel_whose_measuring_is_red_keeps_its_entry(root: Path) -> None:
    """That the run is red because a kernel has no baseline of the matrix yet is another thing."""
    found = {"6.1": _table("SYS_ADMIN"), "7.3": _table("SYS_ADMIN")}
    cells = [Cell("6.1", "a.py::test_x", Outcome.PASS), Cell("7.3", "a.py::test_x", Outcome.PASS)]

    def run(asked: list[str]) -> int:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(root / "results")
        status = _run(root, found, 1, asked)
        wire.write(root / "results" / document.NAME, result_sets.document(cells, exit_status=1))
        return status

    assert "7.3: new" in capability_view.update(root, ["6.1", "7.3"], run, root / "results")
    recorded = capability_view.load(root)["7.3"]
    cells[1] = Cell("7.3", "a.py::test_x", Outcome.FAIL)
    found["7.3"] = _table("PERFMON")
    with pytest.raises(HarnessError, match=r"^not measured: 7\.3; the run ended with status 1$"):
        capability_view.update(root, ["6.1", "7.3"], run, root / "results")
    assert capability_view.load(root)["7.3"] == recorded
