"""What the monitor does not see. Each of these is a property of its hooks: the day one ends, its test says so."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections import Counter
from collections.abc import Callable

import pytest

from kernel_matrix.guest.pytest.marks import requires
from kernel_matrix.guest.system import calls, execs
from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.guest.system.preemption import beside, urgent
from suites.kernel_account import runs_skipped, skipped
from suites.sockets import raw
from suites.sockets.conftest import Call, Monitor, Script, Totals, run_script
from suites.sockets.test_calls import INET, pair, server_of

#: name -> what takes a socket's descriptor away without a call of close
ENDS: dict[str, Callable[[int], object]] = {
    "dup2": lambda fd: os.dup2(os.open("/dev/null", os.O_RDONLY), fd),
    "close_range": lambda fd: os.closerange(fd, fd + 1),
    "exec": lambda _: os.execv("/bin/true", ["true"]) if os.fork() == 0 else os.wait(),
    "exit": lambda _: os._exit(0) if os.fork() == 0 else os.wait(),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_socket_that_goes_without_a_close_is_not_seen(end: str, monitor: Monitor) -> None:
    """Neither by dup2 and close_range, nor by exec and exit of a process that has it."""

    def script(_: Script) -> None:
        left, right = pair()
        ENDS[end](left.fileno())
        assert right.fileno() >= 0

    run_script(script)
    assert monitor.events() == []
    assert monitor.totals() == Totals()


def test_a_number_behind_the_descriptors_is_no_socket(monitor: Monitor) -> None:
    """A process has 64 descriptors to begin with, and in memory those of another one follow: here all are sockets.

    include/linux/fdtable.h, struct files_struct.
    """
    processes, behind = 24, range(64, 768)

    def wrong(more: int) -> bool:
        """Whether a number is a descriptor after all, for this process or one of ``more`` that are there, too."""
        found = False
        if more:
            child = os.fork()
            if child == 0:
                os._exit(wrong(more - 1))
            found = os.waitpid(child, 0)[1] != 0
        return found or {raw.call(Call.WRITE, fd, 0, 0) for fd in behind} != {-errno.EBADF}

    def script(_: Script) -> None:
        left, _right = pair()
        child = os.fork()
        if child == 0:
            # without the descriptors of the monitor, for which the table of this process has grown
            os.dup2(left.fileno(), 3)
            os.closerange(4, 4096)
            for fd in range(4, 64):
                os.dup2(3, fd)
            os._exit(wrong(processes))
        assert os.waitpid(child, 0)[1] == 0

    run_script(script)
    assert monitor.events() == []
    assert monitor.totals() == Totals()


@requires("ia32_emulation")
def test_a_32_bit_call_is_not_seen(monitor: Monitor) -> None:
    """The syscall tracepoints leave them out (kernel/trace/trace_syscalls.c, trace_get_syscall_nr())."""

    def script(script: Script) -> None:
        left, right = pair()
        execs.close32(left.fileno())
        # the other end has noticed
        script.did(Call.RECVFROM, right.fileno(), socket.AF_UNIX, len(right.recv(1)))

    monitor.watch(script)
    assert monitor.totals() == Totals()


def test_io_uring_is_not_seen(monitor: Monitor) -> None:
    """Its operations are no system calls; the other end's receive is one."""

    def script(script: Script) -> None:
        server = server_of(INET)
        client = socket.socket(INET, socket.SOCK_STREAM)
        client.connect(server.getsockname())
        script.did(Call.CONNECT, client.fileno(), INET, 0)
        peer, _ = server.accept()
        script.did(Call.ACCEPT4, server.fileno(), INET, peer.fileno())
        assert calls.send_by_io_uring(client.fileno(), b"x" * 77) == 77
        script.did(Call.RECVFROM, peer.fileno(), INET, len(peer.recv(1000)))

    monitor.watch(script)
    assert monitor.totals() == Totals(connects=1, accepts=1, bytes_received=77)


@requires("tracepoint_preempted")
def test_a_call_is_not_seen_while_its_program_is_preempted(monitor: Monitor) -> None:
    """The kernel does not run a program again on a processor where it is preempted, and counts that.

    One process receives the same message so often in a call that the program at its end takes its time; this one wakes
    up on that processor, and makes the same call, until one is skipped: none is lost of which that is not known.
    """
    programs = ("trace_recvmmsg_enter", "trace_recvmmsg_exit")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def receive_again_and_again() -> None:
        vector = calls.Vector([1] * 4096, mmap.mmap(-1, 64 * 4096), 0)
        while True:
            vector.receive(right.fileno(), socket.MSG_PEEK)

    with left, right:
        left.send(b"x")
        vector = calls.Vector([1], mmap.mmap(-1, mmap.PAGESIZE), 0)
        monitor.begin()
        before, any_before, made = Counter(skipped(programs)), runs_skipped(), 0

        def missed() -> Counter[str]:
            # bpftool only where it has something to say
            return Counter(skipped(programs)) - before if runs_skipped() > any_before else Counter()

        with urgent(), beside(receive_again_and_again):

            def once() -> bool:
                nonlocal made
                made += 1
                vector.receive(right.fileno(), socket.MSG_PEEK)
                return bool(missed())

            wait_until(once, "a call while its program is preempted", 20)
        reported = [event for event in monitor.events(os.getpid()) if event.call == Call.RECVMMSG]
    assert missed().total() == 1
    assert len(reported) == made - 1
