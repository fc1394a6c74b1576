"""A process group that ends with its parent, and what it wrote."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_matrix.vm.process_guard import GuardedGroup


def test_output_is_appended_even_when_reopened_by_name(tmp_path: Path) -> None:
    """QEMU opens /proc/self/fd/2 for each of its character devices, truncating."""
    console = tmp_path / "console.log"
    for word in ("first", "second"):
        script = f"echo {word} one >/proc/self/fd/2; echo {word} two >/proc/self/fd/1"
        group = GuardedGroup(["sh", "-c", script], output=console, environment=dict(os.environ))
        group.process.wait(10)
        group.kill()
    assert console.read_text() == "first one\nfirst two\nsecond one\nsecond two\n"


def test_what_was_written_before_the_kill_is_there_after_it(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    command = ["sh", "-c", "head -c 60000 /dev/zero; echo end; exec sleep 600"]
    group = GuardedGroup(command, output=console, environment=dict(os.environ))
    while not (console.exists() and console.read_bytes().endswith(b"end\n")):
        assert not group.ended()
    group.kill()
    assert console.stat().st_size == 60004


@pytest.mark.parametrize(("batch", "policy"), [(True, os.SCHED_BATCH), (False, os.SCHED_OTHER)])
def test_only_what_computes_for_long_is_a_batch(tmp_path: Path, *, batch: bool, policy: int) -> None:
    """Nor does what it starts: QEMU is a grandchild of virtme-ng."""
    console = tmp_path / "console.log"
    child = shlex.join([sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"])
    group = GuardedGroup(["sh", "-c", f"{child}; :"], output=console, environment=dict(os.environ), batch=batch)
    group.process.wait(10)
    group.kill()
    assert console.read_text() == f"{policy}\n"


@pytest.mark.parametrize("batch", [True, False])
def test_what_runs_under_nice_stays_there(tmp_path: Path, *, batch: bool) -> None:
    code = """
import os, sys
from pathlib import Path
from kernel_matrix.vm.process_guard import GuardedGroup
command = [sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"]
group = GuardedGroup(command, output=Path(sys.argv[1]), environment=dict(os.environ), batch=sys.argv[2] == "True")
group.process.wait(10)
group.kill()
"""
    console = tmp_path / "console.log"
    before = os.getpriority(os.PRIO_PROCESS, 0)
    subprocess.run(["nice", "-n", "3", sys.executable, "-c", code, str(console), str(batch)], timeout=60, check=True)
    assert int(console.read_text()) == min(before + 3, 19)


def test_a_console_that_cannot_be_written_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    group = GuardedGroup(["echo", "word"], output=Path("/dev/full"), environment={**os.environ, "LC_ALL": "C"})
    group.process.wait(10)
    group.kill()
    assert "No space left on device" in capfd.readouterr().err


def test_a_policy_that_the_kernel_does_not_know_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "SCHED_BATCH", 99)
    console = tmp_path / "console.log"
    group = GuardedGroup(["echo", "word"], output=console, environment=dict(os.environ), batch=True)
    group.process.wait(10)
    group.kill()
    assert console.read_text().splitlines()[-1] == "OSError: [Errno 22] sched_setattr"


def test_a_killed_parent_takes_the_group_with_it(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from kernel_matrix.vm.process_guard import GuardedGroup
command = ["sh", "-c", "sleep 600 & echo $! $$; wait"]
group = GuardedGroup(command, output=Path(sys.argv[1]), environment=dict(os.environ))
while not Path(sys.argv[1]).read_text().endswith("\\n"):
    pass
os.kill(os.getpid(), 9)
"""
    console = tmp_path / "console.log"
    assert subprocess.run([sys.executable, "-c", code, str(console)], timeout=60, check=False).returncode == -9
    for pid in console.read_text().split():
        path = Path("/proc") / pid / "stat"
        while path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z":
            pass
