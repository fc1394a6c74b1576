"""What a guest was doing that has fallen silent, with a process of the host in the guest's place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kernel_matrix.relay import hang
from kernel_matrix.relay.boot import Boots
from tests.fake_guest import job_below


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("silent", "what the guest was doing, asked of its agent:\nFile fake.py, line 1 in hangs"),
        ("starved", "what the guest was doing, asked of its kernel (SysRq w, l):\n[   10.0] sysrq: Show alt sysrq w\n"),
        ("masked", "the guest's agent does not answer; its kernel, asked by an NMI:\n[   10.0] Uhhuh. NMI received\n"),
        (
            "frozen",
            "the guest's agent does not answer, nor does its kernel; its processors, asked of QEMU:\nRIP=ffffffff",
        ),
        ("stopped", "the guest's agent does not answer, nor does QEMU: QEMU's monitor did not answer in time"),
    ],
)
def test_a_silent_guest_is_asked_what_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, message: str
) -> None:
    """In turns: who knows most first."""
    monkeypatch.setenv("HARNESS_FAKE", mode)
    for name, seconds in (("_ANSWER_SECONDS", 0.3), ("_ANSWER_SCALED", 0.0), ("_MONITOR_SECONDS", 0.3)):
        monkeypatch.setattr(hang, name, seconds)
    (tmp_path / "console").mkdir()
    boots = Boots(job_below(tmp_path), tmp_path, lambda _: os.sched_yield())
    try:
        boots.start()
        assert boots.doing(1.0).startswith(message)
    finally:
        boots.stop()
