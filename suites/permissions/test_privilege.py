"""The ground of the permission tests: a child has exactly the privileges it was given."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection
from pathlib import Path

import pytest

from kernel_matrix.guest.system.privilege import NOBODY, Cap, ChildError, run_as, with_only, without_capabilities


def _status() -> dict[str, str]:
    """Read what the kernel says about this process."""
    lines = (line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {key: " ".join(value.split()) for key, value in lines}


@pytest.mark.parametrize("uid", [0, NOBODY])
@pytest.mark.parametrize("caps", [set(), {Cap.BPF}, {Cap.BPF, Cap.NET_ADMIN, Cap.SYS_ADMIN}, set(Cap)])
def test_the_kernel_reports_exactly_the_uid_and_the_sets(uid: int, caps: Collection[Cap]) -> None:
    """All four uids, and the effective, permitted and bounding sets; none inheritable or ambient."""
    status = run_as(_status, caps=caps, uid=uid)
    wanted = f"{sum(1 << cap for cap in caps):016x}"
    assert status["Uid"] == status["Gid"] == " ".join([str(uid)] * 4)
    assert [status[name] for name in ("CapEff", "CapPrm", "CapBnd")] == [wanted] * 3
    assert [status[name] for name in ("CapInh", "CapAmb")] == ["0" * 16] * 2


def test_root_gets_no_capability_back_at_exec() -> None:
    """Without SECBIT_NOROOT an exec by uid 0 would fill its sets again."""
    command = ["/usr/bin/grep", "^CapEff", "/proc/self/status"]
    output = without_capabilities(subprocess.check_output, command, text=True)
    assert output.split() == ["CapEff:", "0" * 16]


def test_the_parent_keeps_its_privileges() -> None:
    """Only the child changes."""
    before = _status()
    with_only({Cap.BPF}, os.getpid)
    after = _status()
    assert {key: before[key] for key in before if key.startswith(("Cap", "Uid", "Gid"))} == {
        key: after[key] for key in after if key.startswith(("Cap", "Uid", "Gid"))
    }


def test_a_result_and_an_exception_come_back() -> None:
    """The parent returns what the child returned and raises what it raised, errno and all."""
    assert run_as(lambda: {"pid": 1}, caps=()) == {"pid": 1}
    with pytest.raises(FileNotFoundError):
        run_as(Path("/no/such/file").stat, caps=())


def test_a_child_that_dies_or_hangs_is_reported() -> None:
    """Not waited for without end, and not taken for a result."""
    with pytest.raises(ChildError) as died:
        run_as(lambda: os.kill(os.getpid(), signal.SIGKILL), caps=())
    assert died.value.status == -signal.SIGKILL
    with pytest.raises(ChildError, match=r"no answer within 0\.5 s") as hung:
        run_as(signal.pause, caps=(), seconds=0.5)
    assert hung.value.status is None
