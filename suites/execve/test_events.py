"""Each call of execve or execveat is one event, whatever becomes of the call."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kernel_matrix.guest.pytest.marks import requires
from kernel_matrix.guest.system import execs
from kernel_matrix.guest.system.deadline import wait_until
from suites.execve.conftest import Entry, ExecEvent, Monitor

TRUE = Path("/bin/true")
#: linux/fcntl.h
AT_FDCWD = -100
#: EXEC_FILENAME_LEN of kprobe_execve.h
FILENAME_LENGTH = 256


def own_comm() -> str:
    """Return the name that a forked child of this process has until it execs."""
    return Path("/proc/self/comm").read_text().rstrip("\n")


def only(monitor: Monitor, child: execs.Child) -> ExecEvent:
    """Return the one event of a child."""
    (event,) = monitor.events(child.pid)
    return event


def expected(event: ExecEvent, child: execs.Child, path: str, **other: object) -> ExecEvent:
    """Return the event that a call with this path makes; what a test does not name is root's execve."""
    fields: dict[str, object] = {
        "timestamp": event.timestamp,
        "pid": child.pid,
        "tgid": child.pid,
        "uid": 0,
        "gid": 0,
        # children are forked by the test's process
        "ppid": os.getpid(),
        "entry": Entry.EXECVE,
        "directory": AT_FDCWD,
        # with the NUL
        "filename_length": len(path) + 1,
        "comm": own_comm(),
        "filename": path,
    }
    return ExecEvent(**(fields | other))  # type: ignore[arg-type]


def run(path: Path | str) -> None:
    """Call execve by the C library."""
    os.execv(path, ["x"])


def test_a_program_that_runs_is_one_event(monitor: Monitor) -> None:
    """With the caller's ids and name, and the path as it was given."""
    child = execs.in_child(lambda: run(TRUE))
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, "/bin/true")


def test_a_relative_path_is_reported_as_given(monitor: Monitor) -> None:
    """What the kernel is asked for, not where it ends up."""

    def relative() -> None:
        os.chdir("/bin")
        run("./true")

    child = execs.in_child(relative)
    event = only(monitor, child)
    assert (child.status, event.filename) == (0, "./true")


@pytest.mark.parametrize(
    ("path", "expected_errno"),
    [
        ("/no/such/program", errno.ENOENT),
        ("/etc", errno.EACCES),
        ("/etc/passwd", errno.EACCES),
        ("/etc/passwd/x", errno.ENOTDIR),
        ("", errno.ENOENT),
    ],
)
def test_a_call_that_fails_is_an_event_as_well(path: str, expected_errno: int, monitor: Monitor) -> None:
    """The monitor reports attempts: at the entry nobody knows how the call will end."""
    child = execs.in_child(lambda: run(path))
    assert child.status == expected_errno
    event = only(monitor, child)
    assert event == expected(event, child, path)


def test_a_script_is_one_event_and_its_interpreter_none(monitor: Monitor, tmp_path: Path) -> None:
    """The kernel finds the interpreter within the same call (fs/binfmt_script.c)."""
    script = tmp_path / "script"
    script.write_text("#!/bin/true\n")
    script.chmod(0o755)
    child = execs.in_child(lambda: run(script))
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, str(script))


def test_a_shell_and_its_command_are_an_event_each(monitor: Monitor) -> None:
    """The second exec happens in the same process, under the first program's name."""
    child = execs.in_child(lambda: os.execv("/bin/sh", ["sh", "-c", "exec /bin/true"]))
    first, second = monitor.events(child.pid)
    assert first == expected(first, child, "/bin/sh")
    assert second == expected(second, child, "/bin/true", comm="sh")


@pytest.mark.parametrize(
    ("uid", "gid"), [(0, 0), (1000, 1000), (65534, 65534), (1000, 65534), (4294967294, 7), (7, 4294967294)]
)
def test_an_event_carries_the_callers_real_ids(uid: int, gid: int, monitor: Monitor) -> None:
    """Up to the largest uid there is."""
    child = execs.in_child(lambda: run(TRUE), uid=uid, gid=gid)
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, "/bin/true", uid=uid, gid=gid)


def test_an_event_has_the_name_of_the_caller_not_the_program(monitor: Monitor) -> None:
    """A comm has 15 characters and a NUL."""

    def renamed() -> None:
        Path("/proc/self/comm").write_text("a-very-long-name-indeed")
        run(TRUE)

    child = execs.in_child(renamed)
    event = only(monitor, child)
    assert event == expected(event, child, "/bin/true", comm="a-very-long-nam")


@pytest.mark.parametrize("length", [1, FILENAME_LENGTH - 2, FILENAME_LENGTH - 1, FILENAME_LENGTH, 4095])
def test_a_long_path_is_cut_where_the_event_ends(length: int, monitor: Monitor) -> None:
    """The event holds 255 characters; its length says 256 from there on."""
    path = "/" * length
    child = execs.in_child(lambda: run(path))
    assert child.status == errno.EACCES
    event = only(monitor, child)
    cut = min(length, FILENAME_LENGTH - 1)
    assert event == expected(event, child, path[:cut], filename_length=cut + 1)


@pytest.mark.parametrize("address", [0, 8, 0x7FFF_FFFF_F000])
def test_a_path_that_cannot_be_read_is_an_event_that_says_so(address: int, monitor: Monitor) -> None:
    """The kernel fails the call with EFAULT, and so does the program's own read."""
    child = execs.in_child(lambda: execs.execve(address))
    assert child.status == errno.EFAULT
    event = only(monitor, child)
    assert event == expected(event, child, "", filename_length=-errno.EFAULT)


def test_a_path_not_in_memory_yet_is_an_event_that_says_so(monitor: Monitor, tmp_path: Path) -> None:
    """The call waits for the page and succeeds; a probe cannot wait, and must not hide that it read nothing."""
    path = tmp_path / "path"
    path.write_bytes(b"/bin/true\0")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as page:
        # the address comes from the kernel's list of mappings: asking Python for it would read the page
        line = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path)))
        address = int(line.partition("-")[0], 16)
        child = execs.in_child(lambda: execs.execve(address))
        assert page[:9] == b"/bin/true"
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, "", filename_length=-errno.EFAULT)


@pytest.fixture
def descriptor() -> Iterator[Callable[[str], int]]:
    """Return what opens a path as a descriptor of a number that no other field of an event has."""
    with ExitStack() as opened:

        def at(path: str) -> int:
            first = os.open(path, os.O_PATH)
            number = fcntl.fcntl(first, fcntl.F_DUPFD, 777)
            os.close(first)
            opened.callback(os.close, number)
            return number

        yield at


def test_execveat_relative_to_a_directory(monitor: Monitor, descriptor: Callable[[str], int]) -> None:
    """The event has the path as given, and the descriptor of the directory."""
    directory = descriptor("/bin")
    child = execs.in_child(lambda: execs.execveat(directory, "true"))
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, "true", entry=Entry.EXECVEAT, directory=directory)


@pytest.mark.parametrize("number", [200, 40_000, 70_000])
def test_a_directory_s_descriptor_may_be_large(number: int, monitor: Monitor, descriptor: Callable[[str], int]) -> None:
    """Beyond one byte, and two bytes with a sign and without."""
    directory = descriptor("/bin")

    def action() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100_000, 100_000))
        os.dup2(directory, number)
        execs.execveat(number, "true")

    child = execs.in_child(action)
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, "true", entry=Entry.EXECVEAT, directory=number)


@pytest.mark.parametrize("number", [-1, -101, 2**31 - 1, -(2**31)])
def test_a_directory_that_is_none_is_reported_as_given(number: int, monitor: Monitor) -> None:
    """Only AT_FDCWD (-100) has a meaning among the negative ones; the call fails with EBADF (openat(2))."""
    child = execs.in_child(lambda: execs.execveat(number, "true"))
    assert child.status == errno.EBADF
    event = only(monitor, child)
    assert event == expected(event, child, "true", entry=Entry.EXECVEAT, directory=number)


def test_execveat_of_the_working_directory(monitor: Monitor) -> None:
    """AT_FDCWD is a number like a descriptor's, and negative."""
    child = execs.in_child(lambda: execs.execveat(AT_FDCWD, "/bin/true"))
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, "/bin/true", entry=Entry.EXECVEAT)


def test_execveat_of_a_descriptor_has_no_path(monitor: Monitor, descriptor: Callable[[str], int]) -> None:
    """AT_EMPTY_PATH: what runs is what is open."""
    program = descriptor("/bin/true")
    child = execs.in_child(lambda: execs.execveat(program, "", execs.AT_EMPTY_PATH))
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, "", entry=Entry.EXECVEAT, directory=program)


def test_fexecve_of_the_c_library_is_seen(monitor: Monitor, descriptor: Callable[[str], int]) -> None:
    """It is execveat underneath."""
    program = descriptor("/bin/true")
    child = execs.in_child(lambda: os.execve(program, ["true"], {}))
    assert child.status == 0
    event = only(monitor, child)
    # whether the page of the C library that holds its empty string is in memory is the page cache's affair
    length = event.filename_length
    assert length in {1, -errno.EFAULT}
    fields = {"entry": Entry.EXECVEAT, "filename_length": length, "directory": program}
    assert event == expected(event, child, "", **fields)


def test_posix_spawn_is_seen(monitor: Monitor) -> None:
    """A vforked child's exec is the child's, not the parent's."""
    pid = os.posix_spawn(TRUE, ["true"], {})
    assert os.waitpid(pid, 0)[1] == 0
    (event,) = monitor.events(pid)
    assert (event.pid, event.tgid, event.filename, event.entry) == (pid, pid, "/bin/true", Entry.EXECVE)


@requires("ia32_emulation")
def test_the_32_bit_execve_is_seen(monitor: Monitor) -> None:
    """A 64-bit program may enter the kernel by int 0x80: the other door."""
    child = execs.in_child(lambda: execs.execve32(TRUE))
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, "/bin/true", entry=Entry.COMPAT_EXECVE)


@requires("ia32_emulation")
def test_the_32_bit_execveat_is_seen(monitor: Monitor, descriptor: Callable[[str], int]) -> None:
    """And the other door of the other call."""
    directory = descriptor("/bin")
    child = execs.in_child(lambda: execs.execveat32(directory, "true"))
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, "true", entry=Entry.COMPAT_EXECVEAT, directory=directory)


def test_the_parent_is_a_process(monitor: Monitor) -> None:
    """A child of a thread has the thread's process as its parent (getppid(2))."""
    children: list[execs.Child] = []
    thread = threading.Thread(target=lambda: children.append(execs.in_child(lambda: run(TRUE))))
    thread.start()
    thread.join()
    event = only(monitor, children[0])
    assert event == expected(event, children[0], "/bin/true")


def test_a_tracer_is_no_parent(monitor: Monitor) -> None:
    """For the time of the tracing a process belongs to its tracer (task_struct: parent), getppid(2) does not."""
    numbers, go = os.pipe(), os.pipe()
    tracer = os.fork()
    if tracer == 0:
        traced = int(os.read(numbers[0], 20))
        # PTRACE_SEIZE: nothing stops the process (ptrace(2))
        seized = ctypes.CDLL(None).ptrace(0x4206, traced, None, None) == 0
        os.write(go[1], b"1" if seized else b"0")
        os.waitpid(traced, 0)
        os._exit(0)

    def waits_and_runs() -> None:
        os.write(numbers[1], b"%d" % os.getpid())
        if os.read(go[0], 1) == b"1":
            run(TRUE)

    child = execs.in_child(waits_and_runs)
    assert (child.status, os.waitpid(tracer, 0)[1]) == (0, 0)
    for descriptor in (*numbers, *go):
        os.close(descriptor)
    event = only(monitor, child)
    assert event == expected(event, child, "/bin/true")


def test_an_orphan_s_parent_is_who_has_adopted_it(monitor: Monitor) -> None:
    """The parent at the time of the call, not the one that forked."""
    reading, writing = os.pipe()

    def orphan() -> None:
        parent = os.getpid()
        if os.fork():
            return
        adopted_by = wait_until(lambda: os.getppid() != parent and os.getppid(), "the end of the parent")
        os.write(writing, f"{os.getpid()} {adopted_by}".encode())
        run("/no/such/program")

    child = execs.in_child(orphan)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        pid, adopted_by = (int(word) for word in pipe.read().split())
    assert adopted_by not in {child.pid, os.getpid()}
    (event,) = monitor.events(pid)
    assert event.ppid == adopted_by


def test_a_thread_that_execs_is_named_with_its_process(monitor: Monitor) -> None:
    """Pid is the thread, tgid the process, at the entry: the thread becomes the leader only within the call."""
    reading, writing = os.pipe()

    def thread_execs() -> None:
        def body() -> None:
            os.write(writing, str(threading.get_native_id()).encode())
            run(TRUE)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()

    child = execs.in_child(thread_execs)
    thread_id = int(os.read(reading, 20))
    os.close(reading)
    os.close(writing)
    assert child.status == 0
    assert thread_id != child.pid
    event = only(monitor, child)
    assert (event.pid, event.tgid) == (thread_id, child.pid)


def test_events_come_in_order_with_the_time_of_the_call(monitor: Monitor) -> None:
    """CLOCK_MONOTONIC, the clock that user space has too."""

    def several() -> None:
        for number in range(20):
            try:
                run(f"/no/{number}")
            except FileNotFoundError:
                continue

    before = time.monotonic_ns()
    child = execs.in_child(several)
    after = time.monotonic_ns()
    events = monitor.events(child.pid)
    assert [event.filename for event in events] == [f"/no/{number}" for number in range(20)]
    times = [before, *[event.timestamp for event in events], after]
    assert times == sorted(set(times))


def test_two_monitors_see_the_same_calls(monitor: Monitor, resized: Callable[..., Monitor]) -> None:
    """Each attached object has a probe of its own."""
    other = resized()
    child = execs.in_child(lambda: run(TRUE))
    first, second = only(monitor, child), only(other, child)
    assert first == expected(first, child, "/bin/true")
    assert second == expected(second, child, "/bin/true")


def test_nothing_is_reported_after_detaching(resized: Callable[..., Monitor]) -> None:
    """And nothing is counted."""
    monitor = resized()
    seen = execs.in_child(lambda: run(TRUE), uid=1000)
    monitor.links.close()
    unseen = execs.in_child(lambda: run(TRUE), uid=1000)
    assert [event.tgid for event in monitor.events(seen.pid, unseen.pid)] == [seen.pid]
    assert monitor.calls(1000) == 1
