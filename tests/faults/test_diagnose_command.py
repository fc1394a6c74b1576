"""``diagnose OBJECT --kernel NAME``: an object is tried in a guest, and what is refused explained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _diagnose(name: str, kernel: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kernel_matrix", "diagnose", f"build/{name}.bpf.o", "--kernel", kernel]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_what_attaches_is_said_to_attach() -> None:
    done = _diagnose("kprobe_execve", "6.1")
    assert done.returncode == 0, done.stderr
    assert "trace_execve on 6.1: attached: " in done.stdout


def test_what_is_refused_is_explained() -> None:
    done = _diagnose("fixtures/hooks", "5.10")
    assert done.returncode == 1, done.stderr  # where a download is announced, too
    assert "hook_fentry on 5.10: attached: " in done.stdout
    assert "hook_fentry_missing on 5.10: refused at load: ESRCH: symbol missing: " in done.stdout
    assert "cause: symbol missing: the kernel has no function no_such_function" in done.stdout
    assert "remedy: boot with lsm=" in done.stdout
