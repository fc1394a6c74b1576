"""Run probes in processes with an exact uid and user namespace, which change their effective set before every probe.

There is one child for each user: root and nobody of the initial user namespace, root of a user namespace of nobody with
its own network namespace (as in an unprivileged container), and the same with a BPF token. The sets are the kernel's
own: the child keeps every capability of the table permitted and makes only the chosen ones effective.
"""

from __future__ import annotations

import ctypes
import functools
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls import bpf_calls
from kernel_matrix.guest.bpf.step_error import errno_name
from kernel_matrix.guest.bpf.undo import Calls
from kernel_matrix.guest.probes import capability_probes
from kernel_matrix.guest.probes.capability_place import Place, Probe, Resources
from kernel_matrix.guest.system.deadline import limit
from kernel_matrix.guest.system.privilege import NOBODY, Cap, capability_sets, run_as, set_capabilities
from kernel_matrix.shared.outcomes import capabilities
from kernel_matrix.shared.outcomes.capabilities import Caps
from kernel_matrix.shared.outcomes.capability_table import USERS

ROOT, NOBODY_NAME, USERNS, TOKEN = USERS

#: the permitted set of every child; the effective sets are subsets of it
_PERMITTED = tuple(Cap[name] for name in (*capabilities.CAPABILITIES, *capabilities.FILE_CAPABILITIES))
#: linux/prctl.h
_PR_SET_DUMPABLE = 4
#: the mount calls, which have the same numbers on every architecture but Alpha (as all since 5.1), and linux/mount.h
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC, _SET_STRING, _CMD_CREATE = 1, 1, 6
_DELEGATIONS = ("delegate_cmds", "delegate_maps", "delegate_progs", "delegate_attachs")

#: capabilities in minimal sets
_NAMES = (*capabilities.CAPABILITIES, *capabilities.FILE_CAPABILITIES)

_libc = ctypes.CDLL(None, use_errno=True)

_T = TypeVar("_T")
#: probe -> the result with each set
Answers = dict[str, dict[Caps, str]]


_errno_name = functools.cache(errno_name)
_ALL = capability_sets(effective=_PERMITTED, permitted=_PERMITTED)


@functools.cache
def _only(caps: Caps) -> bytes:
    return capability_sets(effective=[Cap[name] for name in caps], permitted=_PERMITTED)


class Prober:
    """Runs probes in this process."""

    def __init__(self, resources: Resources, *, token: int | None = None, delegating: int | None = None) -> None:
        self._resources = resources
        self._token = token
        self._delegating = delegating
        #: the current subject, the place of each set with its programs, and what is undone with the subject
        self._subject = ""
        self._places: dict[Caps, Place] = {}
        self._kept = Calls()
        #: what is undone after each probe
        self._undo = Calls()

    def answer(self, probe: Probe, caps: Caps) -> str:
        """Run a probe with exactly these capabilities effective, and undo it with all; return the result."""
        if probe.subject != self._subject:
            self._begin(probe.subject)
        place = self._places.get(caps) or self._place(caps)
        set_capabilities(_only(caps))
        try:
            probe.run(place)
        except OSError as error:
            return _errno_name(error.errno)
        finally:
            # most refusals leave nothing to undo, and the next probe has a set of its own
            if self._undo:
                set_capabilities(_ALL)
                self._undo.close()
        return capabilities.OK

    def _begin(self, subject: str) -> None:
        """Release the programs of the last subject, with all capabilities."""
        set_capabilities(_ALL)
        self._kept.close()
        self._subject, self._places = subject, {}

    def _place(self, caps: Caps) -> Place:
        """Return the place of a set: it is the same for all probes of a subject."""
        place = Place(self._resources, self._undo, self._token, self._delegating, kept=self._kept)
        return self._places.setdefault(caps, place)


def run_as_user(who: str, resources: Resources, body: Callable[[Prober], _T], seconds: float = 120) -> _T:
    """Run the body in a child as the user ``who``; return its result."""
    if who in {ROOT, NOBODY_NAME}:
        uid = NOBODY if who == NOBODY_NAME else 0
        return run_as(lambda: body(Prober(resources)), caps=_PERMITTED, uid=uid, seconds=limit(seconds))
    if who == USERNS:
        return run_as(lambda: _in_user_namespace(resources, body), caps=(), uid=NOBODY, seconds=limit(seconds))
    with _delegator() as delegator:
        return run_as(lambda: _with_token(resources, body, delegator), caps=(), uid=NOBODY, seconds=limit(seconds))


def answers(who: str, resources: Resources, tries: Iterable[tuple[Probe, Sequence[Caps]]]) -> Answers:
    """Run each probe with its sets in one child; return the results."""
    probes_with_sets = list(tries)
    if not probes_with_sets:
        return {}

    def body(prober: Prober) -> Answers:
        return {probe.name: {caps: prober.answer(probe, caps) for caps in sets} for probe, sets in probes_with_sets}

    return _with_unused(who, resources, probes_with_sets, body)


def measured(
    who: str, resources: Resources, probes: Iterable[Probe], searched: Iterable[Probe] = ()
) -> tuple[Answers, dict[str, tuple[Caps, ...]]]:
    """Run each probe with the sixteen sets; find minimal sets, with file capabilities too, for shipped programs.

    The search starts from the sixteen results. For ``searched`` only the minimal sets are found; the search starts with
    those of the similar probe, so that few working sets are tried, which take longest.
    """
    sixteen = capabilities.subsets()
    probes_with_sets = [(probe, sixteen) for probe in probes]
    without_answers, like = list(searched), capability_probes.like(resources.programs)
    if not probes_with_sets and not without_answers:
        return {}, {}

    def body(prober: Prober) -> tuple[Answers, dict[str, tuple[Caps, ...]]]:
        def works(probe: Probe, caps: Caps) -> bool:
            return prober.answer(probe, caps) == capabilities.OK

        results = {probe.name: {caps: prober.answer(probe, caps) for caps in sets} for probe, sets in probes_with_sets}
        working = {
            name: {caps: answer == capabilities.OK for caps, answer in of.items()} for name, of in results.items()
        }
        known_sets = {probe: working[probe.name] for probe, _ in probes_with_sets if probe.shipped}
        for probe in without_answers:
            guess = capabilities.minimal(caps for caps, answer in working[like[probe.name]].items() if answer)
            known_sets[probe] = {caps: works(probe, caps) for caps in guess}
        least = {
            probe.name: capabilities.search(functools.partial(works, probe), _NAMES, of)
            for probe, of in known_sets.items()
        }
        return results, least

    return _with_unused(who, resources, probes_with_sets, body)


def _with_unused(
    who: str,
    resources: Resources,
    tries: Iterable[tuple[Probe, Sequence[Caps]]],
    body: Callable[[Prober], _T],
) -> _T:
    """Run the body in a child as ``who``; load one program per attachment when a type can be attached only once."""
    with ExitStack() as loaded:
        unused = {
            probe.subject: [bpf_calls.load(resources.loadables[probe.subject], loaded) for _ in sets]
            for probe, sets in tries
            if probe.subject in capability_probes.ATTACHED_ONCE and probe.attaches
        }
        return run_as_user(who, replace(resources, unused=unused), body)


def _become_root_of_a_namespace(more: int = 0) -> None:
    """Enter a new user namespace, with root mapped to this uid, and a network namespace that it owns."""
    # after a change of uid the files of /proc/self are root's
    if _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_DUMPABLE")
    uid, gid = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET | more)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _in_user_namespace(resources: Resources, body: Callable[[Prober], _T]) -> _T:
    _become_root_of_a_namespace()
    return body(Prober(resources))


def _with_token(resources: Resources, body: Callable[[Prober], _T], delegator: socket.socket) -> _T:
    """Open a bpffs in the namespace, let root of the initial one make it delegating, and create a token from it."""
    _become_root_of_a_namespace(os.CLONE_NEWNS)
    context = _call(_FSOPEN, b"bpf", _CLOEXEC)
    socket.send_fds(delegator, [b"x"], [context])
    message, fds, _, _ = socket.recv_fds(delegator, 1 << 12, 1)
    if not fds:
        raise RuntimeError(f"the host's root could not make the bpffs delegating: {message.decode() or 'it ended'}")
    folder = os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fds[0])
    return body(Prober(resources, token=steps.create_token(folder), delegating=folder))


@contextmanager
def _delegator() -> Iterator[socket.socket]:
    """Run a privileged child that makes one bpffs delegating, which needs CAP_SYS_ADMIN in the initial namespace."""
    own_end, child_end = socket.socketpair()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            own_end.close()
            _delegate(child_end)
            status = 0
        except BaseException as error:  # noqa: BLE001  whatever it is, the receiver of the answer raises it
            child_end.send(f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(status)
    child_end.close()
    try:
        yield own_end
    finally:
        own_end.close()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise RuntimeError(f"the child that makes a bpffs delegating failed: exit code {status}")


def _delegate(peer: socket.socket) -> None:
    fds = socket.recv_fds(peer, 1, 1)[1]
    if fds:
        for name in _DELEGATIONS:
            _call(_FSCONFIG, fds[0], _SET_STRING, name.encode(), b"any", 0)
        _call(_FSCONFIG, fds[0], _CMD_CREATE, None, None, 0)
        socket.send_fds(peer, [b"x"], [_call(_FSMOUNT, fds[0], 0, 0)])


def _call(number: int, *arguments: int | bytes | None) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result
