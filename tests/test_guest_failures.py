"""What goes wrong in a guest and is not what the caller waits for goes out: with calls of the kernel's that fail."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from kernel_matrix.guest import agent
from kernel_matrix.guest.bpf import leaks, library, step_error, steps
from kernel_matrix.guest.bpf.calls import bpf_calls
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.loaders import libbpf as loader
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.probes import users
from kernel_matrix.guest.pytest import capture
from kernel_matrix.guest.pytest.plugin import GuestPlugin
from kernel_matrix.guest.system import deadline, execs, privilege
from kernel_matrix.shared import project


def refusing(number: int) -> Callable[..., int]:
    """A function of libbpf's that fails."""
    return lambda *_: -number


def in_libc(number: int) -> SimpleNamespace:
    """A C library whose calls fail."""

    def failing(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    return SimpleNamespace(prctl=failing, capget=failing)


def test_a_list_of_objects_ends_at_enoent_only() -> None:
    assert list(leaks._ids(refusing(errno.ENOENT))) == []
    with pytest.raises(PermissionError, match="listing BPF objects above 0"):
        list(leaks._ids(refusing(errno.EPERM)))


@pytest.mark.parametrize(("number", "complete"), [(errno.ENOENT, True), (errno.EINTR, False)])
def test_a_list_of_keys_ends_at_enoent_only(monkeypatch: pytest.MonkeyPatch, number: int, *, complete: bool) -> None:
    fake = SimpleNamespace(
        bpf_map__fd=lambda _: 3,
        bpf_map__key_size=lambda _: 4,
        bpf_map__value_size=lambda _: 4,
        bpf_map_get_next_key=refusing(number),
    )
    monkeypatch.setattr(loader, "libbpf", lambda: fake)
    keys = loader.Map(1).keys()
    if complete:
        assert list(keys) == []
    else:
        with pytest.raises(StepError, match="map keys"):
            list(keys)


def test_a_number_of_cpus_that_is_not_known_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "libbpf", lambda: SimpleNamespace(libbpf_num_possible_cpus=refusing(errno.EINVAL)))
    with pytest.raises(OSError, match="possible CPUs"):
        loader.possible_cpus()


def test_a_link_that_cannot_be_destroyed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(bpf_link__destroy=refusing(errno.EBADF))
    monkeypatch.setattr(steps, "libbpf", lambda: fake)
    with (
        pytest.raises(StepError, match="XDP link on 2") as caught,
        steps._link(steps.Program("x", 1), "XDP link on 2", lambda: 1),
    ):
        pass
    assert (caught.value.errno, caught.value.stage) == (errno.EBADF, "detach")


@pytest.mark.parametrize("attach", [
    lambda undo: bpf_calls.cgroup(3, 4, "cgroup_inet_ingress", undo),
    lambda undo: bpf_calls.clsact(3, 4, undo),
])  # fmt: skip
def test_what_cannot_be_undone_is_an_error(
    monkeypatch: pytest.MonkeyPatch, attach: Callable[[ExitStack], None]
) -> None:
    well = {name: lambda *_: 0 for name in ("bpf_prog_attach", "bpf_tc_hook_create", "bpf_tc_attach")}
    failing = {name: refusing(errno.EPERM) for name in ("bpf_prog_detach2", "bpf_tc_hook_destroy")}
    monkeypatch.setattr(library, "libbpf", lambda: SimpleNamespace(**well, **failing))
    monkeypatch.setattr(steps, "type_numbers", lambda _: {"cgroup_inet_ingress": 0})
    undo = ExitStack()
    attach(undo)
    with pytest.raises(StepError) as caught:
        undo.close()
    assert (caught.value.errno, caught.value.stage) == (errno.EPERM, "detach")


def test_a_child_that_cannot_delegate_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: socket.socket) -> None:
        raise OSError(errno.EINVAL, "system call 431")

    monkeypatch.setattr(users, "_delegate", failing)
    with pytest.raises(RuntimeError, match="exit code 1"), users._delegator() as ours:
        assert ours.recv(1 << 12) == b"OSError: [Errno 22] system call 431"


def test_a_child_that_delegates_nothing_has_nothing_to_say() -> None:
    """Its other end is closed before anything was asked."""
    with users._delegator():
        pass


def test_a_tap_is_empty_at_eagain_only() -> None:
    class Tap:
        def __init__(self, *numbers: int) -> None:
            self._numbers = iter(numbers)

        def recvmsg(self, *_: int) -> None:
            raise OSError(next(self._numbers), "")

    taken = capture._take_all(Tap(errno.ENETDOWN, errno.EAGAIN), 0, 0)  # type: ignore[arg-type]
    assert list(taken) == []
    with pytest.raises(OSError, match=rf"^\[Errno {errno.ENOBUFS}\]"):
        list(capture._take_all(Tap(errno.ENOBUFS), 0, 0))  # type: ignore[arg-type]


def test_a_process_whose_sets_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_error, "_libc", in_libc(errno.EPERM))
    with pytest.raises(PermissionError, match="capget"):
        step_error.Credentials.this_process()


def test_only_unknown_capabilities_are_in_no_bounding_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a capability that the kernel does not have may be absent from the bounding set."""
    monkeypatch.setattr(privilege, "_libc", in_libc(errno.EINVAL))
    assert not privilege._in_bounding_set(63)
    monkeypatch.setattr(privilege, "_libc", in_libc(errno.EPERM))
    with pytest.raises(PermissionError, match="PR_CAPBSET_READ"):
        privilege._in_bounding_set(1)


def test_a_childs_own_exception_is_on_the_console(capfd: pytest.CaptureFixture[str]) -> None:
    def failing() -> None:
        raise ValueError("no word of that")

    assert execs.in_child(failing).status == 254
    assert "ValueError: no word of that" in capfd.readouterr().err


def test_security_modules_are_unknown_only_without_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_SECURITY", tmp_path)
    assert (machine.active_lsms(), machine._lockdown()) == (None, "none")
    for name in ("lsm", "lockdown"):
        (tmp_path / name).mkdir()
    for read in (machine.active_lsms, machine._lockdown):
        with pytest.raises(IsADirectoryError):
            read()


def test_a_rehearsal_that_is_none_ends_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a saved guest is to have imported is missing in all its copies then."""
    statuses = iter([pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.USAGE_ERROR])
    monkeypatch.setattr(pytest, "main", lambda _: next(statuses))
    agent.rehearse()
    with pytest.raises(SystemExit, match=r"the rehearsal ended with <ExitCode\.USAGE_ERROR: 4>"):
        agent.rehearse()


def test_a_wake_measures_the_speed_and_writes_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wake of the same process measures anew, and its limits take the place of those of an earlier wake."""
    probes = iter([0.5, 0.25])
    monkeypatch.setattr(agent, "wake", lambda *_: None)
    monkeypatch.setattr(agent, "probe_speed", lambda: next(probes))
    monkeypatch.setattr(agent, "LIMITS", str(tmp_path / "limits"))
    for seconds in (0.5, 0.25):
        assert json.loads(agent.answer({"entropy": "00", "time": 1.0}, 0, 0)) == {"seconds": seconds}
        assert agent.answer({"limits": {"HARNESS_SPEED": str(seconds)}}, 0, 0) == b"awake"
        monkeypatch.setenv("HARNESS_SPEED", "70")
        deadline.read_limits(tmp_path / "limits")
        assert os.environ["HARNESS_SPEED"] == str(seconds)


def test_a_worker_reads_its_limits_before_its_first_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: a worker is saved before its first test, never behind it."""
    read: list[str] = []
    monkeypatch.setattr(deadline, "read_limits", lambda: read.append("limits"))
    worker = SimpleNamespace(_awake=False, _log=SimpleNamespace(mark=read.append))
    for nodeid in ("a", "b"):
        GuestPlugin.pytest_runtest_logstart(worker, nodeid)  # type: ignore[arg-type]
    assert read == ["limits", "a", "b"]


def test_the_speed_probe_takes_time() -> None:
    assert 0 < agent.probe_speed() < 60


def test_interrupted_rounds_do_not_slow_a_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first round translates, and in another one somebody else had the processor."""
    rounds = iter([0.9, 0.004, 0.005, 0.7, 0.003])
    monkeypatch.setattr(agent, "_round", lambda: next(rounds))
    assert agent.probe_speed() == 0.005


def test_agent_and_plugin_mean_the_same_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent is in the image and imports nothing of the engine."""
    assert Path(agent.LIMITS) == project.LIMITS
    # a guest that no relay has woken
    monkeypatch.setenv("HARNESS_SPEED", "20")
    deadline.read_limits(Path("/nonexistent/limits"))
    assert os.environ["HARNESS_SPEED"] == "20"


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError])
def test_a_refused_step_is_reported_where_fdinfo_is_hidden(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    """Until 5.14 a process that has changed its uid may not read its own fdinfo: EPERM was recorded as EACCES."""

    def hidden(*_: object, **__: object) -> str:
        raise error

    refused = SimpleNamespace(bpf_xdp_attach=lambda *_: -errno.EPERM)
    monkeypatch.setattr(steps, "libbpf", lambda: refused)
    monkeypatch.setattr(Path, "read_text", hidden)
    with pytest.raises(StepError) as refusal:
        steps.xdp_attach(3, 1)
    assert (refusal.value.errno, refusal.value.stage, refusal.value.kind) == (errno.EPERM, "attach", "")
