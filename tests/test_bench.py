"""The tables of measurements, and the command they are measured against."""

from __future__ import annotations

import os
import shlex
import tempfile
from itertools import count
from pathlib import Path

import pytest

from harness import bench, plainly, wire
from harness.bench import Report, Row, Start, Whole
from harness.console import Phases
from harness.errors import HarnessError
from harness.preparation import Plan
from harness.results import RunFacts, RunRecord
from harness.vm import Accelerator, GuestSpec

ROW = Row(
    "6.1",
    plain=(Start(20.0, 24.0), Start(28.0, 16.0), Start(22.0, 18.0)),
    booted=(Start(10.0, 12.0), Start(14.0, 8.0), Start(11.0, 9.0)),
    restored=(Start(0.5, 1.0), Start(0.5, 1.0), Start(0.7, 0.5)),
    fresh=(0.4, 0.6),
    panic=(),
    phases=(Phases(2.0, 0.2, 0.9, 12.0), Phases(1.0, 0.4, 0.9, 10.0)),
)


def test_the_tables_have_medians_spreads_and_the_ratio_of_each_pair() -> None:
    report = Report(
        "2 processors", 2, "emulated", "4 saved", (ROW,), (Whole(400.0, 50.0, 80.0, 900, ("6.1: passed",)),)
    )
    lines = bench.markdown(report).splitlines()
    assert (
        "| 6.1 | 22.00 (20.00 to 28.00) | 18.00 (16.00 to 24.00) | 11.00 (10.00 to 14.00) | 9.00 (8.00 to 12.00)"
        " | 0.50 (0.50 to 0.70) | 1.00 (0.50 to 1.00) | 24.00 (16.00 to 36.00) | 0.50 (0.40 to 0.60) | - |"
    ) in lines
    assert "| 6.1 | 1.50 (1.00 to 2.00) | 0.30 (0.20 to 0.40) | 0.90 (0.90 to 0.90) | 11.00 (10.00 to 12.00) |" in lines
    assert "| 400 | 50 | 8.0 | 80 | 1.25 | 900 |" in lines
    assert lines[-1] == "- plain, 6.1: passed"
    assert wire.decode(wire.encode(report), Report) == report


def test_the_warm_run_is_the_first_that_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERMESH_CACHE", str(tmp_path))
    saves = iter(["guests", "workers", None, "never"])
    seconds = count(1.0)
    record = RunRecord(RunFacts("emulated", 1, ()), 0.0, 0, 0, ())

    def matrix(*_: object) -> bench._Run:
        if name := next(saves):
            (tmp_path / "snapshots" / name).mkdir(parents=True)
        return bench._Run(tmp_path, record, next(seconds), 0)

    monkeypatch.setattr(bench, "_matrix", matrix)
    assert bench._warm(tmp_path).seconds == 3.0


def test_a_cache_that_never_holds_all_is_no_warm_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERMESH_CACHE", str(tmp_path))
    monkeypatch.setattr(bench, "_matrix", lambda *_: tempfile.mkdtemp(dir=(tmp_path / "snapshots")))
    (tmp_path / "snapshots").mkdir()
    with pytest.raises(HarnessError, match="still being saved"):
        bench._warm(tmp_path)


def test_memory_is_that_of_the_process_and_its_descendants() -> None:
    assert bench._anonymous_mib(os.getpid()) >= 1
    assert bench._anonymous_mib(-1) == 0


def test_the_plain_way_has_the_same_kernel_image_and_emulator() -> None:
    spec = GuestSpec(
        kernel="6.1",
        vmlinuz=Path("/k/vmlinuz"),
        modules=Path("/k/modules"),
        root=Path("/r/root.erofs"),
        accelerator=Accelerator.TCG,
        console=Path("/c"),
        project=Path("/p"),
        slots=(),
        boot_timeout=1,
        append=("lockdown=integrity",),
    )
    words = plainly.command(spec, Path("/s"))
    assert words[words.index("--append") + 1] == "lockdown=integrity"
    assert words[words.index("--root-disk") + 1] == "/r/root.erofs"
    assert words[words.index("--run") + 1] == "/k/vmlinuz"
    assert "tcg,thread=single" in next(word for word in words if word.startswith("--qemu-opts="))
    plan = Plan((), Path("/f"), {}, frozenset({"tcx"}), {"6.1": frozenset()}, RunFacts("tcg", 1, ()), ())
    assert shlex.split(plainly.script("6.1", plan, ["suites", "-k", "a b"]))[-3:] == ["suites", "-k", "a b"]
