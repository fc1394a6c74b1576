"""Whose call it is: which of a process's ids, seen from which namespace, and calls that are nobody's."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_matrix.guest.system import execs
from suites.execve.conftest import Monitor
from suites.execve.test_events import TRUE, expected, only, run
from suites.large_pids import FIRST, large_pids

_MODPROBE = Path("/proc/sys/kernel/modprobe")


def test_the_ids_are_the_real_ones(monitor: Monitor) -> None:
    """Not the effective, not the saved, not those of the file system: six ids, all different."""

    def with_six_ids() -> None:
        os.setresgid(2001, 2002, 2003)
        os.setresuid(1001, 0, 1003)
        run("/no/such/program")

    child = execs.in_child(with_six_ids)
    assert child.status == errno.ENOENT
    event = only(monitor, child)
    assert event == expected(event, child, "/no/such/program", uid=1001, gid=2001)
    assert [monitor.calls(uid) for uid in (1001, 0, 1003)] == [1, 0, 0]


def test_a_setuid_program_s_calls_are_its_users(monitor: Monitor, tmp_path: Path) -> None:
    """Who runs it stays the real user (execve(2)): first the call that runs it, then the one that it makes."""
    shell = tmp_path / "shell"
    shell.write_bytes(Path("/bin/sh").resolve().read_bytes())
    shell.chmod(0o755 | stat.S_ISUID)
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o005:
            folder.chmod(0o755)
    child = execs.in_child(lambda: os.execv(shell, ["sh", "-p", "-c", "exec /bin/true"]), uid=1000, gid=1001)
    assert child.status == 0
    first, second = monitor.events(child.pid)
    assert first == expected(first, child, str(shell), uid=1000, gid=1001)
    assert second == expected(second, child, "/bin/true", uid=1000, gid=1001, comm="shell")
    assert (monitor.calls(1000), monitor.calls(0)) == (2, 0)


def test_ids_are_those_outside_of_user_namespaces(monitor: Monitor) -> None:
    """Inside, the caller is root; on the machine it is 1000 (bpf_get_current_uid_gid() asks init_user_ns)."""

    def inside() -> None:
        os.unshare(os.CLONE_NEWUSER)
        # its files in proc are root's since it has changed its uid (proc(5), PR_SET_DUMPABLE)
        if ctypes.CDLL(None).prctl(4, 1, 0, 0, 0):
            os._exit(252)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text("0 1000 1")
        Path("/proc/self/gid_map").write_text("0 1001 1")
        if (os.getuid(), os.getgid()) != (0, 0):
            os._exit(253)
        run(TRUE)

    child = execs.in_child(inside, uid=1000, gid=1001)
    assert child.status == 0
    event = only(monitor, child)
    assert event == expected(event, child, "/bin/true", uid=1000, gid=1001)
    assert (monitor.calls(1000), monitor.calls(0)) == (1, 0)


def test_pids_are_those_outside_of_pid_namespaces(monitor: Monitor) -> None:
    """The first process of a namespace is 1 inside; the parent, which is not in it, has no number there."""
    reading, writing = os.pipe()

    def outside() -> None:
        os.unshare(os.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            if (os.getpid(), os.getppid()) != (1, 0):
                os._exit(253)
            run(TRUE)
        os.write(writing, f"{pid} {os.waitpid(pid, 0)[1]}".encode())

    child = execs.in_child(outside)
    pid, status = (int(word) for word in os.read(reading, 40).split())
    os.close(reading)
    os.close(writing)
    assert status == 0
    (event,) = monitor.events(pid)
    assert event == expected(event, execs.Child(pid, 0), "/bin/true", ppid=child.pid)


def test_pids_may_be_large(monitor: Monitor) -> None:
    """The caller's and its parent's, and those of a thread, whose own number is another."""
    numbers: list[int] = []

    def parent() -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:

            def thread_execs() -> None:
                os.write(writing, b"%d" % threading.get_native_id())
                run(TRUE)

            thread = threading.Thread(target=thread_execs)
            thread.start()
            thread.join()
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        os.write(out, b"%d %s" % (pid, os.read(reading, 20)))

    back, out = os.pipe()
    with large_pids():
        child = execs.in_child(parent)
    os.close(out)
    with os.fdopen(back) as pipe:
        numbers += map(int, pipe.read().split())
    caller, thread = numbers
    assert FIRST <= child.pid < caller < thread
    (event,) = monitor.events(caller)
    assert (event.tgid, event.pid, event.ppid) == (caller, thread, child.pid)


def test_the_name_is_the_thread_s(monitor: Monitor) -> None:
    """A comm belongs to a thread (proc(5)): the process has another."""

    def thread_execs() -> None:
        def body() -> None:
            Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("worker")
            run(TRUE)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()

    child = execs.in_child(thread_execs)
    assert child.status == 0
    assert only(monitor, child).comm == "worker"


def test_a_search_through_path_is_a_call_for_each_folder(monitor: Monitor) -> None:
    """The kernel knows no PATH: the C library tries one folder after another (exec(3))."""
    child = execs.in_child(lambda: os.execvpe("true", ["true"], {"PATH": "/no/a:/no/b:/bin"}))
    assert child.status == 0
    assert [event.filename for event in monitor.events(child.pid)] == ["/no/a/true", "/no/b/true", "/bin/true"]


@pytest.mark.parametrize("path", [b"/no/\xff\xfe\x80", "/no/\u00fc\u4e16".encode(), b"/no/\n\t\x01 x"])
def test_a_path_is_bytes(path: bytes, monitor: Monitor) -> None:
    """Any but NUL and in any order: no encoding, and nothing is escaped."""
    child = execs.in_child(lambda: os.execv(path, [b"x"]))
    assert child.status == errno.ENOENT
    event = only(monitor, child)
    assert os.fsencode(event.filename) == path
    assert event.filename_length == len(path) + 1


@pytest.fixture
def modprobe(tmp_path: Path) -> Iterator[Path]:
    """Replace the program that the kernel starts for a missing module; return the file that it then makes."""
    made, helper = tmp_path / "made", tmp_path / "helper"
    helper.write_text(f"#!/bin/sh\n: > {made}\n")
    helper.chmod(0o755)
    before = _MODPROBE.read_text()
    _MODPROBE.write_text(str(helper))
    yield made
    _MODPROBE.write_text(before)


def test_what_the_kernel_starts_is_not_seen(monitor: Monitor, modprobe: Path) -> None:
    """A blind spot: modprobe and the like are started without a system call (kernel/umh.c, kernel_execve())."""
    # AF_IPX: gone since 4.18, and still asked for as the module net-pf-4 (net/socket.c, __sock_create())
    with pytest.raises(OSError, match="not supported"):
        socket.socket(4, socket.SOCK_DGRAM)
    assert modprobe.exists()
    assert monitor.events() == []
    assert monitor.calls(0) == 0


def test_the_result_is_not_known(monitor: Monitor) -> None:
    """A blind spot: at the entry a call that works and one that fails look the same."""
    works = execs.in_child(lambda: os.execv("/bin/true", ["true"]))
    fails = execs.in_child(lambda: os.execv("/bin/nope", ["true"]))
    assert (works.status, fails.status) == (0, errno.ENOENT)
    first, second = monitor.events(works.pid, fails.pid)
    assert first == expected(first, works, "/bin/true")
    assert second == expected(second, fails, "/bin/nope")
