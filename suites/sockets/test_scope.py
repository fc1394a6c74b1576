"""What is a network event, whose it is, and what happens when there is no room for it."""

from __future__ import annotations

import errno
import mmap
import os
import queue
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.system import calls
from kernel_matrix.guest.system.deadline import limit
from suites.reader import wait_inside
from suites.sockets.conftest import Call, Monitor, Script, State, Totals, monitoring, run_script

UNIX = socket.AF_UNIX
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
#: linux/errno.h: inside the kernel only; user space sees EINTR, or the call starts again
ERESTARTSYS = 512
#: sizeof(struct net_event) and the header of a ring buffer's record
RECORD = 96 + 8
PAGE = 4096
#: sizeof(struct mmsghdr)
MESSAGE = 64


def test_a_file_is_no_socket(monitor: Monitor, tmp_path: Path) -> None:
    """Read, write, readv, writev, sendfile and close of files are nobody's network."""
    path = tmp_path / "file"

    def script(_: Script) -> None:
        with path.open("wb", buffering=0) as file:
            file.write(b"x" * 100)
            os.writev(file.fileno(), [b"y", b"z"])
        with path.open("rb", buffering=0) as file, (tmp_path / "copy").open("wb", buffering=0) as copy:
            assert len(file.read(50)) == 50
            os.readv(file.fileno(), [bytearray(10)])
            os.sendfile(copy.fileno(), file.fileno(), 0, 100)

    monitor.watch(script)
    assert monitor.totals() == Totals()


def test_a_pipe_is_no_socket(monitor: Monitor) -> None:
    """Nor is a pipe."""

    def script(_: Script) -> None:
        reading, writing = os.pipe()
        os.write(writing, b"x" * 100)
        assert len(os.read(reading, 1000)) == 100
        os.close(reading)
        os.close(writing)

    monitor.watch(script)
    assert monitor.totals() == Totals()


@pytest.mark.parametrize("special", ["eventfd", "epoll", "timer", "null", "directory"])
def test_other_descriptors_are_no_sockets(special: str, monitor: Monitor) -> None:
    """Whatever has a descriptor can be closed."""

    def script(_: Script) -> None:
        made = {
            "eventfd": lambda: os.eventfd(1),
            "epoll": lambda: select.epoll().fileno(),
            "timer": lambda: os.timerfd_create(time.CLOCK_MONOTONIC),
            "null": lambda: os.open("/dev/null", os.O_RDWR),
            "directory": lambda: os.open("/", os.O_RDONLY),
        }[special]()
        if special == "eventfd":
            os.eventfd_read(made)
        if special == "null":
            os.write(made, b"x")
        if special != "epoll":
            os.close(made)

    monitor.watch(script)
    assert monitor.totals() == Totals()


@pytest.mark.parametrize("fd", [-1, 1000, 1 << 20])
def test_a_bad_descriptor_is_no_socket(fd: int, monitor: Monitor) -> None:
    """EBADF has no family and no event, also far beyond the table of open files."""

    def script(_: Script) -> None:
        for call in (lambda: os.close(fd), lambda: os.write(fd, b"x"), lambda: os.read(fd, 1)):
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                call()
            assert caught.value.errno == errno.EBADF

    monitor.watch(script)
    assert monitor.totals() == Totals()


def test_each_descriptor_of_a_socket_is_closed_for_itself(monitor: Monitor) -> None:
    """A duplicate is a descriptor more: two closes."""

    def script(script: Script) -> None:
        left, _right = socket.socketpair(UNIX, STREAM)
        again = os.dup(left.fileno())
        script.did(Call.CLOSE, left.fileno(), UNIX, 0)
        left.close()
        script.did(Call.WRITE, again, UNIX, os.write(again, b"abc"))
        script.did(Call.CLOSE, again, UNIX, 0)
        os.close(again)

    monitor.watch(script)
    assert monitor.totals() == Totals(bytes_sent=3, closes=2)


def test_shutdown_is_no_close(monitor: Monitor) -> None:
    """It ends the conversation; the descriptor stays."""

    def script(script: Script) -> None:
        left, right = socket.socketpair(UNIX, STREAM)
        left.shutdown(socket.SHUT_RDWR)
        script.did(Call.RECVFROM, right.fileno(), UNIX, len(right.recv(1)))

    monitor.watch(script)
    assert monitor.totals() == Totals()


def test_an_inherited_socket_counts_for_the_child_that_uses(monitor: Monitor) -> None:
    """Events name who calls, not who opened."""
    left, right = socket.socketpair(UNIX, STREAM)
    with left, right:
        number = left.fileno()

        def script(script: Script) -> None:
            script.did(Call.WRITE, number, UNIX, os.write(number, b"x" * 5))

        monitor.watch(script)


@pytest.mark.parametrize("uid", [1000, 65534, 4294967294])
def test_an_event_carries_the_callers_uid(uid: int, monitor: Monitor) -> None:
    """Whose process it is, up to the largest uid there is."""

    def script(script: Script) -> None:
        left, _right = socket.socketpair(UNIX, STREAM)
        script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x"))

    (event,) = monitor.watch(script, uid=uid)
    assert event.uid == uid


def test_a_threads_call_is_named_with_its_process(monitor: Monitor) -> None:
    """Pid is the thread, tgid the process; the name is the thread's own."""

    def script(script: Script) -> None:
        left, _right = socket.socketpair(UNIX, STREAM)
        threads: list[int] = []

        def body() -> None:
            threads.append(threading.get_native_id())
            Path(f"/proc/self/task/{threads[0]}/comm").write_text("worker")
            left.send(b"x" * 4)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        # a note of the thread's number, where a family goes
        script.did(Call.SENDTO, left.fileno(), threads[0], 4)

    pid, (expected,), _ = run_script(script)
    (event,) = monitor.events(pid)
    assert (event.pid, event.tgid, event.comm) == (expected.family, pid, "worker")
    assert event.pid != pid


def test_events_come_in_order_with_the_time_of_the_calls_end(monitor: Monitor) -> None:
    """CLOCK_MONOTONIC, the clock that user space has too."""

    def script(script: Script) -> None:
        left, right = socket.socketpair(UNIX, STREAM)
        for size in range(1, 20):
            script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x" * size))
            script.did(Call.RECVFROM, right.fileno(), UNIX, len(right.recv(100)))

    before = time.monotonic_ns()
    events = monitor.watch(script)
    times = [before, *[event.timestamp for event in events], time.monotonic_ns()]
    assert times == sorted(set(times))


class Reader:
    """A thread that makes one call after another, each when it is asked to."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            self.done.put(self._asked.get()())

    def begins(self, call: Call, action: Callable[[], object]) -> None:
        """Return once the thread sleeps inside the call that this action makes."""
        self._asked.put(action)
        wait_inside(call, self.thread)

    def does(self, action: Callable[[], object]) -> object:
        """Return the result of an action that need not sleep."""
        self._asked.put(action)
        return self.done.get(timeout=limit(5))


#: the calls that the tests of missed ends are about: attaching and detaching all 36 programs takes seconds
UNDER_WAY = (Call.READ, Call.RECVFROM)


def left_over(monitor: Monitor, reader: Reader) -> tuple[socket.socket, socket.socket]:
    """Leave a remembered read of the thread behind: its programs are attached again when it has ended."""
    left, right = socket.socketpair(UNIX, STREAM)
    monitor.attach(*UNDER_WAY)
    reader.begins(Call.READ, lambda: os.read(right.fileno(), 100))
    monitor.links.close()
    left.send(b"x" * 5)
    assert reader.done.get(timeout=limit(5)) == b"x" * 5
    return left, right


def seen_by(monitor: Monitor, reader: Reader) -> list[tuple[str, int, int]]:
    """Return call, descriptor and result of the thread's events."""
    events = [event for event in monitor.events() if event.pid == reader.thread.native_id]
    return [(Call(event.call).name, event.fd, event.result) for event in events]


@pytest.mark.parametrize("call", [Call.READ, Call.RECVFROM])
def test_a_call_under_way_when_attaching_is_nobody_s(call: Call, detached: Monitor) -> None:
    """Its entry was not seen, and nothing is reported at its end."""
    left, right = socket.socketpair(UNIX, STREAM)
    reader = Reader()
    actions: dict[Call, Callable[[], bytes]] = {
        Call.READ: lambda: os.read(right.fileno(), 9),
        Call.RECVFROM: lambda: right.recv(9),
    }
    with left, right:
        reader.begins(call, actions[call])
        detached.attach(*UNDER_WAY)
        left.send(b"x")
        assert reader.done.get(timeout=limit(5)) == b"x"
        assert seen_by(detached, reader) == []
        totals = detached.totals()
        assert (totals.bytes_received, totals.lost_ends) == (0, 0)


@pytest.mark.parametrize("following", ["the same call", "another call", "on a socket"])
def test_a_call_under_way_is_not_another_s_end(following: str, detached: Monitor) -> None:
    """A read of a socket ends while nothing is attached; the call that is under way afterwards is not that read.

    Neither the same call on a pipe, nor another call, nor the same on another socket: their own entries were not seen.
    """
    reader = Reader()
    left, right = left_over(detached, reader)
    reading, writing = os.pipe()
    other, its_end = socket.socketpair(UNIX, STREAM)
    # under way are a call, what it does, and what ends it
    cases: dict[str, tuple[Call, Callable[[], bytes], Callable[[], int]]] = {
        "the same call": (Call.READ, lambda: os.read(reading, 9), lambda: os.write(writing, b"y")),
        "another call": (Call.RECVFROM, lambda: right.recv(9), lambda: left.send(b"y")),
        "on a socket": (Call.READ, lambda: os.read(its_end.fileno(), 9), lambda: other.send(b"y")),
    }
    call, action, end = cases[following]
    reader.begins(call, action)
    detached.attach(*UNDER_WAY)
    detached.begin()
    end()
    assert reader.done.get(timeout=limit(5)) == b"y"
    assert seen_by(detached, reader) == []
    totals = detached.totals()
    assert (totals.bytes_received, totals.lost_ends) == (0, 1)
    assert list(detached.calls.keys()) == []
    for descriptor in (reading, writing):
        os.close(descriptor)
    for sock in (left, right, other, its_end):
        sock.close()


@pytest.mark.parametrize("following", ["a socket", "a pipe"])
def test_a_call_whose_end_was_not_seen_is_lost(following: str, detached: Monitor) -> None:
    """The thread's next call, on whatever, finds it, counts it, and is reported as itself."""
    reader = Reader()
    left, right = left_over(detached, reader)
    detached.attach(*UNDER_WAY)
    detached.begin()
    reading, writing = os.pipe()
    left.send(b"yyyy")
    if following == "a socket":
        assert reader.does(lambda: right.recv(9)) == b"yyyy"
        assert seen_by(detached, reader) == [("RECVFROM", right.fileno(), 4)]
    else:
        reader.begins(Call.READ, lambda: os.read(reading, 9))
        # counted before the call has ended
        assert detached.totals().lost_ends == 1
        os.write(writing, b"zzz")
        assert reader.done.get(timeout=limit(5)) == b"zzz"
        assert seen_by(detached, reader) == []
    totals = detached.totals()
    assert (totals.bytes_received, totals.lost_ends) == (4 if following == "a socket" else 0, 1)
    assert list(detached.calls.keys()) == []
    for descriptor in (reading, writing):
        os.close(descriptor)
    for sock in (left, right):
        sock.close()


def test_a_receive_that_is_killed_is_interrupted_and_forgotten(monitor: Monitor) -> None:
    """The signal ends the call (ERESTARTSYS) before it ends the thread: the table never fills up with the dead."""

    def script(script: Script) -> None:
        left, _right = socket.socketpair(UNIX, STREAM)
        thread = threading.Thread(target=lambda: left.recv(1), daemon=True)
        thread.start()
        # the child ends by os._exit, and the thread with it
        wait_inside(Call.RECVFROM, thread)
        script.did(Call.RECVFROM, left.fileno(), UNIX, -ERESTARTSYS)

    pid, (expected,), _ = run_script(script)
    (event,) = monitor.events(pid)
    assert (event.fd, event.result, event.bytes) == (expected.fd, -ERESTARTSYS, 0)
    assert event.state == State.INTERRUPTED
    assert monitor.totals() == Totals()
    assert list(monitor.calls.keys()) == []


def test_an_accept_that_is_killed_is_none(monitor: Monitor) -> None:
    """Nobody connects; the signal ends the wait (inet_csk_wait_for_connect()), and no accept is counted."""

    def script(script: Script) -> None:
        server = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.accept, daemon=True)
        thread.start()
        wait_inside(Call.ACCEPT4, thread)
        script.did(Call.ACCEPT4, server.fileno(), socket.AF_INET, -ERESTARTSYS)

    pid, (expected,), _ = run_script(script)
    (event,) = monitor.events(pid)
    assert (event.fd, event.result, event.state) == (expected.fd, -ERESTARTSYS, State.INTERRUPTED)
    assert monitor.totals() == Totals()


def test_a_receive_that_times_itself_is_interrupted(monitor: Monitor) -> None:
    """With SO_RCVTIMEO a signal's errno is EINTR and the call is not started again (sock_intr_errno())."""

    class Ring(Exception):
        pass

    def ring(*_: object) -> None:
        raise Ring

    def script(script: Script) -> None:
        left, _right = socket.socketpair(UNIX, STREAM)
        left.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("=qq", 3600, 0))
        signal.signal(signal.SIGUSR1, ring)
        main = threading.main_thread()

        def other() -> None:
            wait_inside(Call.RECVFROM, main)
            signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

        threading.Thread(target=other).start()
        with pytest.raises(Ring):
            left.recv(1)
        script.did(Call.RECVFROM, left.fileno(), UNIX, -errno.EINTR)

    pid, (expected,), _ = run_script(script)
    (event,) = monitor.events(pid)
    assert (event.fd, event.result, event.state) == (expected.fd, -errno.EINTR, State.INTERRUPTED)
    assert monitor.totals() == Totals()


def test_a_call_that_starts_again_is_reported_again(monitor: Monitor) -> None:
    """A handler with SA_RESTART: first the end by the signal, then that of the same call; the time is the end's."""

    def script(script: Script) -> None:
        left, right = socket.socketpair(UNIX, STREAM)
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.siginterrupt(signal.SIGUSR1, False)  # noqa: FBT003 - it has no name for it
        main = threading.main_thread()

        def other() -> None:
            wait_inside(Call.RECVFROM, main)
            signal.pthread_kill(main.ident or 0, signal.SIGUSR1)
            # the C library's handler writes here, between the two ends
            assert os.read(reading, 1)
            wait_inside(Call.RECVFROM, main)
            script.did(Call.RECVFROM, right.fileno(), UNIX, time.monotonic_ns())
            left.send(b"x" * 3)

        thread = threading.Thread(target=other)
        thread.start()
        assert right.recv(10) == b"xxx"
        thread.join()

    pid, (note,), _ = run_script(script)
    ended = [event for event in monitor.events(pid) if event.call == Call.RECVFROM]
    assert [(event.result, event.state) for event in ended] == [(-ERESTARTSYS, State.INTERRUPTED), (3, State.DONE)]
    assert ended[0].timestamp < note.result < ended[1].timestamp
    assert monitor.totals() == Totals(bytes_sent=3, bytes_received=3)


def test_a_connect_that_is_killed_has_not_failed(monitor: Monitor) -> None:
    """A backlog of 0 takes one connection (unix_recvq_full); the next connect waits, and a signal ends it."""

    def script(script: Script) -> None:
        server, first, second = (socket.socket(UNIX, STREAM) for _ in range(3))
        server.bind(b"\0server")
        server.listen(0)
        first.connect(b"\0server")
        thread = threading.Thread(target=lambda: second.connect(b"\0server"), daemon=True)
        thread.start()
        wait_inside(Call.CONNECT, thread)
        script.did(Call.CONNECT, second.fileno(), UNIX, -ERESTARTSYS)

    pid, (expected,), _ = run_script(script)
    done, ended = monitor.events(pid)
    assert (done.state, ended.state) == (State.DONE, State.INTERRUPTED)
    assert (ended.fd, ended.result) == (expected.fd, -ERESTARTSYS)
    assert monitor.totals() == Totals(connects=1, connects_interrupted=1)


def test_what_finds_the_ring_buffer_full_is_counted(loader: Loader) -> None:
    """A page holds 39 records (39 * 104 = 4056); the totals count every call all the same."""
    fitting = PAGE // RECORD
    assert fitting == 39

    def script(_: Script) -> None:
        left, _right = socket.socketpair(UNIX, STREAM)
        for _index in range(100):
            left.send(b"xx")

    with monitoring(loader, events=PAGE) as monitor:
        pid, _, _ = run_script(script)
        assert len(monitor.events(pid)) == fitting
        assert monitor.totals() == Totals(bytes_sent=200, lost_events=100 - fitting)


def test_a_call_that_finds_no_room_to_be_remembered_is_counted(loader: Loader) -> None:
    """One place: a thread waits in recv and holds it, so the next call is lost, and counted as lost."""

    def script(_: Script) -> None:
        left, right = socket.socketpair(UNIX, STREAM)
        thread = threading.Thread(target=lambda: right.recv(1))
        thread.start()
        wait_inside(Call.RECVFROM, thread)
        left.send(b"x")
        thread.join()

    with monitoring(loader, calls=1) as monitor:
        pid, _, _ = run_script(script)
        assert [event.call for event in monitor.events(pid)] == [Call.RECVFROM]
        assert monitor.totals() == Totals(bytes_received=1, lost_calls=1)


@pytest.mark.parametrize(("before", "behind"), [(1, 1), (3, 13), (8, 8)])
def test_a_length_that_cannot_be_read_back_is_counted(before: int, behind: int, lossy: Monitor) -> None:
    """A page is full of a vector's messages, and is taken away before the last message comes.

    The kernel has written their lengths by then. At the call's end those before and behind that page still count,
    however the program divides the vector: it reads up to eight lengths at once.
    """
    missing = PAGE // MESSAGE
    count = before + missing + behind

    def script(_: Script) -> None:
        Path("/proc/sys/net/unix/max_dgram_qlen").write_text(str(count))
        left, right = socket.socketpair(UNIX, DATAGRAM)
        memory = mmap.mmap(-1, 3 * PAGE)
        vector = calls.Vector([count] * count, memory, PAGE - before * MESSAGE)
        came: list[int] = []
        for size in range(1, count):
            left.send(b"x" * size)
        thread = threading.Thread(target=lambda: came.append(vector.receive(right.fileno())))
        thread.start()
        wait_inside(Call.RECVMMSG, thread)
        assert vector.lengths() == [*range(1, count), 0]
        calls.take_away(memory, PAGE, PAGE)
        left.send(b"x" * count)
        thread.join()
        assert came == [count]

    pid, _, _ = run_script(script)
    received = [event for event in lossy.events(pid) if event.call == Call.RECVMMSG]
    sizes = range(1, count + 1)
    left_over = sum(sizes[:before]) + sum(sizes[-behind:])
    assert [(event.result, event.bytes) for event in received] == [(count, left_over)]
    assert lossy.totals() == Totals(bytes_sent=sum(sizes), bytes_received=left_over, lost_lengths=missing)


def test_a_vector_may_lie_anywhere(monitor: Monitor) -> None:
    """21 messages of 1 to 21 bytes, at each place that a message can have among eight, and at odd addresses."""
    sizes = range(1, 22)
    places = [*range(0, 8 * MESSAGE, MESSAGE), 8, 7, PAGE - 5 * MESSAGE + 1]

    def script(script: Script) -> None:
        Path("/proc/sys/net/unix/max_dgram_qlen").write_text(str(len(places) * len(sizes)))
        left, _right = socket.socketpair(UNIX, DATAGRAM)
        for place in places:
            sent = calls.Vector(sizes, mmap.mmap(-1, 2 * PAGE), place).send(left.fileno())
            script.did(Call.SENDMMSG, left.fileno(), UNIX, sent, moved=sum(sizes))
            assert sent == len(sizes)

    monitor.watch(script)
    assert monitor.totals() == Totals(bytes_sent=len(places) * sum(sizes))


def test_a_loaded_monitor_has_counted_nothing(loader: Loader) -> None:
    """Its totals start at zero; a socket call between loading and attaching is nobody's."""
    with monitoring(loader) as monitor:
        assert monitor.totals() == Totals()
        assert monitor.events() == []


def test_two_monitors_see_the_same_calls(monitor: Monitor, detached: Monitor) -> None:
    """Each attached object has programs of its own."""

    def script(script: Script) -> None:
        left, _right = socket.socketpair(UNIX, STREAM)
        script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x"))

    detached.attach()
    pid = monitor.watch(script)[0].tgid
    assert [event.call for event in detached.events(pid)] == [Call.SENDTO]
    assert detached.totals() == monitor.totals() == Totals(bytes_sent=1)


def test_nothing_is_reported_after_detaching(detached: Monitor) -> None:
    """And nothing is counted."""

    def send(_: Script) -> None:
        left, _right = socket.socketpair(UNIX, STREAM)
        left.sendall(b"x")

    detached.attach()
    seen, _, _ = run_script(send)
    detached.links.close()
    unseen, _, _ = run_script(send)
    assert {event.tgid for event in detached.events(seen, unseen)} == {seen}
    assert detached.totals() == Totals(bytes_sent=1)
