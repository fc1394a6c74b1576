"""The starts of a small project, measured once (with VMs): `bench` runs nowhere else but by hand."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from kernel_matrix.commands.bench.report import Report
from kernel_matrix.shared import wire

CASES = Path(__file__).with_name("cases")
TABLE = """
tests = ["tests"]

[bench]
file = "tests/test_one.py"
panic = "tests/case_panic.py"
"""


def test_each_way_to_start_is_measured_once(tmp_path: Path) -> None:
    (tmp_path / "kernel-matrix.toml").write_text(TABLE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text("def test_one(): pass\n\n\ndef test_two(): pass\n")
    shutil.copy(CASES / "case_panic.py", tmp_path / "tests")
    words = ["bench", "--kernel", "6.1", "--runs", "1", "--loop", "0", "--whole", "0"]
    command = [sys.executable, "-m", "kernel_matrix", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    report = wire.decode((tmp_path / "results" / "bench.json").read_bytes(), Report)
    (row,) = report.rows
    assert 0 < row.restored[0].wall < row.booted[0].wall
    assert row.plain[0].wall > 0
    assert (len(row.fresh), len(row.panic)) == (1, 1)
    assert done.stdout.endswith((tmp_path / "results" / "bench.md").read_text() + "\n")
