"""What the monitor changes for others who read the same tracepoints."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from kernel_matrix.guest.bpf.calls import perf
from kernel_matrix.guest.bpf.loaders import Loader
from suites.sockets import raw
from suites.sockets.conftest import Call, monitoring, programs_of


def test_perf_events_on_its_tracepoints_see_nothing(loader: Loader) -> None:
    """The programs return 0, which keeps a call from every perf event of its tracepoint, as `perf record` has them.

    kernel/trace/trace_syscalls.c, perf_syscall_enter() and perf_syscall_exit(). On a socket and on none, where the
    programs return from other places; a call that has no program is counted, and these, too, once they are detached.
    """
    own = [program.removeprefix("trace_").rpartition("_") for call in Call for program in programs_of(call)]
    names = [f"syscalls/sys_{end}_{call}" for call, _, end in own]

    def counted() -> dict[str, int]:
        with ExitStack() as stack:
            events = {
                name: perf.counter(perf.tracepoint_number(name), stack)
                for name in [*names, "syscalls/sys_enter_getpgid"]
            }
            before = {name: perf.count(event) for name, event in events.items()}
            for call in Call:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                for fd in (-1, sock.fileno()):
                    raw.call(call, fd, 0, 0, 0, 0, 0)
                sock.detach() if call is Call.CLOSE else sock.close()
            os.getpgid(0)
            return {name: perf.count(event) - before[name] for name, event in events.items()}

    with monitoring(loader):
        with_monitor = counted()
    assert with_monitor.pop("syscalls/sys_enter_getpgid") == 1
    assert with_monitor == dict.fromkeys(names, 0)
    without = counted()
    assert [name for name in names if without[name] < 2] == []
