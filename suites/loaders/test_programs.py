"""Loaders that are programs: their end costs the test that uses them, and leaves nothing."""

from __future__ import annotations

import os
import signal

import pytest

from kernel_matrix.guest.bpf.loader_support.loader_program import LoaderLost, ProgramLoader
from kernel_matrix.guest.pytest.marks import with_loaders
from kernel_matrix.guest.system.deadline import wait_until
from suites.loaders.conftest import FIXTURE, seen

pytestmark = with_loaders("aya", "cilium")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT], ids=["KILL", "ABRT"])
def test_a_program_that_dies_is_lost_with_all_it_held(number: signal.Signals, loader: ProgramLoader) -> None:
    """The next request says how it ended; the kernel has nothing left; the next object gets another process."""
    with loader.opened(FIXTURE) as obj:
        obj.attach_kprobe("loaders_kprobe", "__x64_sys_getpgid")
        numbers, process, pid = obj.map("numbers"), loader.process, loader.process.pid
        assert seen().links or seen().events
        os.kill(pid, number)
        # Go's runtime writes its stacks before it ends
        wait_until(lambda: not process.alive, f"the end of {loader.name}")
        with pytest.raises(LoaderLost, match=rf"^{loader.name}: get: its program "):
            numbers.get(0)
        wait_until(lambda: not (seen().links or seen().events), "the end of what it attached")
    with loader.opened(FIXTURE) as obj:
        assert obj.map("numbers").get(0) == bytes(8)
        assert loader.process.pid != pid


def test_a_file_s_tests_share_one_process(loader: ProgramLoader) -> None:
    """Opening again starts nothing."""
    with loader.opened(FIXTURE):
        pid = loader.process.pid
    with loader.opened(FIXTURE):
        assert loader.process.pid == pid
