"""What a run leaves behind, also when it is killed."""

from __future__ import annotations

import shutil
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from kernel_matrix.report import run_folder
from kernel_matrix.report.formats import junit
from kernel_matrix.results import matrix
from kernel_matrix.shared import wire
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.vm.guests import GuestRecord
from tests.result_sets import read_cells

CELLS = (
    Cell("6.1", "suites/a.py::test_x[native]", Outcome.PASS, "6.1.0-56-amd64", 1.5),
    Cell("6.1", "suites/a.py::test_y", Outcome.CRASH, "6.1.0-56-amd64", 0.1, "panic\n\x1b[31mOops\x00 <&>"),
    Cell("7.3", "suites/a.py::test_x[native]", Outcome.SKIP, "7.3.1", 0.0, "no arena"),
)
FACTS = run_folder.RunFacts("emulated", 2, (run_folder.KernelFacts("6.1", "6.1.0-56-amd64", "6.1.1-1"),))


def test_cells_are_on_disk_before_the_run_is_over(tmp_path: Path) -> None:
    run = run_folder.RunDirectory.create(tmp_path / "results")
    for cell in CELLS:
        run.append(cell)
    assert read_cells(tmp_path / "results" / "latest" / "results.jsonl") == CELLS


def test_the_end_adds_what_did_not_come(tmp_path: Path) -> None:
    run = run_folder.RunDirectory.create(tmp_path)
    for cell in CELLS:
        run.append(cell)
    judged = matrix.Matrix.of(CELLS, [("7.3", "suites/a.py::test_y")], ["6.1", "7.3"])
    run.console("6.1").write_bytes(b"x" * 100_000 + b"\xff the last words")
    run.finish(run.document(judged, FACTS, 1), FACTS, (GuestRecord("6.1", "cold", "", 1.0),))
    rows = read_cells(tmp_path / "latest" / "results.jsonl")
    assert set(rows) == set(judged.cells)
    record = wire.decode((tmp_path / "latest" / "run.json").read_bytes(), run_folder.RunRecord)
    assert (record.facts, record.exit_status, record.cells) == (FACTS, 1, 4)
    assert "panic" in (tmp_path / "latest" / "matrix.md").read_text()
    html = (tmp_path / "latest" / "matrix.html").read_text()
    assert "\ufffd the last words" in html
    assert len(html) < 100_000, "of a console its end"


def test_junit_has_a_suite_per_kernel_and_can_be_parsed() -> None:
    root = ET.fromstring(junit.junit(CELLS))
    assert [suite.get("name") for suite in root] == ["6.1", "7.3"]
    assert (root[0].get("tests"), root[0].get("errors"), root[1].get("skipped")) == ("2", "1", "1")
    case = root[0].findall("testcase")[1]
    assert (case.get("classname"), case.get("name")) == ("6.1.suites.a", "test_y[6.1]")
    (error,) = case
    assert (error.tag, error.get("message")) == ("error", "crash: panic")
    assert error.text == "panic\n[31mOops <&>"


def made(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Make so many runs, a minute apart."""
    folders = []
    for number in range(count):
        monkeypatch.setattr(time, "strftime", lambda _, number=number: f"20200101T00{number:02}00")
        folders.append(run_folder.RunDirectory.create(folder).path)
    return folders


def test_only_the_last_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = made(tmp_path, 12, monkeypatch)
    assert sorted(path for path in tmp_path.iterdir() if not path.is_symlink()) == runs[2:]
    assert (tmp_path / "latest").resolve() == runs[-1]


def test_what_the_harness_has_not_made_is_never_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' folders with a console in them, a run of a version without markers, a copied one, a link to one."""
    others = [tmp_path / name for name in ("1998-photos", "20190101T000000-1", "a game", "before my change")]
    for path in others[:3]:
        (path / "console").mkdir(parents=True)
        (path / "console" / "kept").touch()
    (first,) = made(tmp_path / "elsewhere", 1, monkeypatch)
    shutil.copytree(first, others[3])
    linked = tmp_path / "20180101T000000-1"
    linked.symlink_to(first)
    runs = made(tmp_path, 25, monkeypatch)
    assert all((path / "console").is_dir() for path in [*others, linked, first])
    assert all((path / "console" / "kept").exists() for path in others[:3])
    assert [path for path in runs if path.exists()] == runs[-10:]


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_latest_of_the_users_own_is_not_replaced(tmp_path: Path, kind: str) -> None:
    latest = tmp_path / "latest"
    if kind == "link":
        latest.symlink_to("release-2")
    elif kind == "folder":
        latest.mkdir()
    else:
        latest.write_text("mine")
    with pytest.raises(
        ManifestError, match=r"^results: \S+/latest is no run of the matrix and would be replaced: [^\n]+$"
    ):
        run_folder.RunDirectory.create(tmp_path)
    assert list(tmp_path.iterdir()) == [latest]
    assert latest.is_symlink() == (kind == "link")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HarnessError, match=r"^results cannot be written to [^\n]+: Not a directory$"):
        run_folder.RunDirectory.create(tmp_path / "file" / "results")


def test_facts_are_kept_by_name_and_kernel(tmp_path: Path) -> None:
    run = run_folder.RunDirectory.create(tmp_path)
    run.keep_facts("capabilities", "6.1", '{"a": 1}')
    run.keep_facts("capabilities", "7.3", "{}")
    assert (tmp_path / "latest" / "capabilities" / "6.1.json").read_text() == '{"a": 1}'
    assert (tmp_path / "latest" / "capabilities" / "7.3.json").exists()


def test_a_capture_is_kept_under_the_tests_name(tmp_path: Path) -> None:
    run = run_folder.RunDirectory.create(tmp_path)
    run.keep_pcap("6.1", "suites/xdp/test_x.py::test_y[native-a b/c]", "QUI=")
    path = run.path / "pcap" / "6.1" / "suites_xdp_test_x_test_y_native-a_b_c.pcap"
    assert path.read_bytes() == b"AB"
    assert len(run_folder.file_name("x" * 300)) < 250


def test_a_kernel_has_one_console_of_all_its_guests(tmp_path: Path) -> None:
    """The consoles of a kernel's other guests are in the same file, beside its own."""
    run = run_folder.RunDirectory.create(tmp_path)
    for name in ("6.1", "6.1~2", "6.1~3", "6.1+locked", "6.1+locked~2", "6.12~2"):
        run.console(name).write_text(f"{name}\n")
    run.join_consoles(["6.1", "6.1+locked", "6.12", "7.3"])
    consoles = {path.name: path.read_text().split() for path in (run.path / "console").iterdir()}
    assert consoles == {
        "6.1.log": ["6.1", "6.1~2", "6.1~3"],
        "6.1+locked.log": ["6.1+locked", "6.1+locked~2"],
        "6.12.log": ["6.12~2"],
    }
