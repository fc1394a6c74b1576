"""Who tries: processes of an exact uid and user namespace that change their effective set before every try.

One child for each: root and nobody of the host, root of a user namespace of nobody's with a network namespace of its
own (what a container without privileges has), and the same with a BPF token. The sets are the kernel's own: the child
keeps every capability of the table permitted and makes only the chosen ones effective.
"""

from __future__ import annotations

import ctypes
import functools
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from kernel_matrix.guest.bpf import bpf_calls, steps
from kernel_matrix.guest.bpf.step_error import errno_name
from kernel_matrix.guest.probes import capability_probes
from kernel_matrix.guest.probes.capability_place import Given, Place, Probe
from kernel_matrix.guest.system.deadline import limit
from kernel_matrix.guest.system.privilege import NOBODY, Cap, capability_sets, run_as, set_capabilities
from kernel_matrix.shared import capabilities
from kernel_matrix.shared.capabilities import Caps
from kernel_matrix.shared.capability_table import USERS

ROOT, NOBODY_NAME, USERNS, TOKEN = USERS

#: what a child may ever have; the effective set is chosen from it
_PERMITTED = tuple(Cap[name] for name in (*capabilities.CAPABILITIES, *capabilities.FILE_CAPABILITIES))
#: linux/prctl.h
_PR_SET_DUMPABLE = 4
#: the mount calls, numbered alike on every architecture but Alpha as all since 5.1 are, and linux/mount.h
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC, _SET_STRING, _CMD_CREATE = 1, 1, 6
_DELEGATIONS = ("delegate_cmds", "delegate_maps", "delegate_progs", "delegate_attachs")

#: of which minimal sets are made
_NAMES = (*capabilities.CAPABILITIES, *capabilities.FILE_CAPABILITIES)

_libc = ctypes.CDLL(None, use_errno=True)

_T = TypeVar("_T")
#: probe -> what came of each set
Answers = dict[str, dict[Caps, str]]


_errno_name = functools.cache(errno_name)
_ALL = capability_sets(effective=_PERMITTED, permitted=_PERMITTED)


@functools.cache
def _only(caps: Caps) -> bytes:
    return capability_sets(effective=[Cap[name] for name in caps], permitted=_PERMITTED)


class Trier:
    """A process that tries."""

    def __init__(self, given: Given, *, token: int | None = None, delegating: int | None = None) -> None:
        self._given = given
        self._token = token
        self._delegating = delegating
        #: of the subject that is tried: what was loaded with each set
        self._subject = ""
        self._own: dict[Caps, dict[str, int]] = {}
        self._kept = ExitStack()

    def answer(self, probe: Probe, caps: Caps, unused: Mapping[str, list[int]]) -> str:
        """Try with exactly these capabilities effective; undo with all."""
        if probe.subject != self._subject:
            self._kept.close()
            self._subject, self._own = probe.subject, {}
        with ExitStack() as undo:
            own = self._own.setdefault(caps, {})
            place = Place(self._given, undo, self._token, self._delegating, unused, own, self._kept)
            set_capabilities(_only(caps))
            try:
                probe.run(place)
            except OSError as error:
                return _errno_name(error.errno)
            finally:
                set_capabilities(_ALL)
        return capabilities.OK


def tried_by(who: str, given: Given, body: Callable[[Trier], _T], seconds: float = 120) -> _T:
    """Run the body in a child that is ``who``; return its result."""
    if who in {ROOT, NOBODY_NAME}:
        uid = NOBODY if who == NOBODY_NAME else 0
        return run_as(lambda: body(Trier(given)), caps=_PERMITTED, uid=uid, seconds=limit(seconds))
    if who == USERNS:
        return run_as(lambda: _in_user_namespace(given, body), caps=(), uid=NOBODY, seconds=limit(seconds))
    with _delegator() as ours:
        return run_as(lambda: _with_token(given, body, ours), caps=(), uid=NOBODY, seconds=limit(seconds))


def answers(who: str, given: Given, tries: Iterable[tuple[Probe, Sequence[Caps]]]) -> Answers:
    """Try each probe with its sets."""
    wanted = list(tries)

    def body(trier: Trier, unused: Mapping[str, list[int]]) -> Answers:
        return {probe.name: {caps: trier.answer(probe, caps, unused) for caps in sets} for probe, sets in wanted}

    return _with_unused(who, given, wanted, body)


def measured(
    who: str, given: Given, probes: Iterable[Probe], searched: Iterable[Probe] = ()
) -> tuple[Answers, dict[str, tuple[Caps, ...]]]:
    """Try each probe with each of the sixteen sets; find the minimal sets, over file capabilities too, of the shipped.

    The search begins with what the sixteen came to. Of ``searched`` nothing but the minimal sets is wanted: first come
    those of the probe that each is like, so that few sets work that are tried, which take longest.
    """
    wanted = [(probe, capabilities.subsets()) for probe in probes]
    more, like = list(searched), capability_probes.like(given.programs)

    def body(trier: Trier, unused: Mapping[str, list[int]]) -> tuple[Answers, dict[str, tuple[Caps, ...]]]:
        def works(probe: Probe, caps: Caps) -> bool:
            return trier.answer(probe, caps, unused) == capabilities.OK

        found = {probe.name: {caps: trier.answer(probe, caps, unused) for caps in sets} for probe, sets in wanted}
        working = {name: {caps: answer == capabilities.OK for caps, answer in of.items()} for name, of in found.items()}
        known = {probe: working[probe.name] for probe, _ in wanted if probe.shipped}
        for probe in more:
            guess = capabilities.minimal(caps for caps, answer in working[like[probe.name]].items() if answer)
            known[probe] = {caps: works(probe, caps) for caps in guess}
        least = {
            probe.name: capabilities.search(functools.partial(works, probe), _NAMES, of) for probe, of in known.items()
        }
        return found, least

    return _with_unused(who, given, wanted, body)


def _with_unused(
    who: str,
    given: Given,
    tries: Iterable[tuple[Probe, Sequence[Caps]]],
    body: Callable[[Trier, Mapping[str, list[int]]], _T],
) -> _T:
    """Run the body in a child that is ``who``, with programs for one try each where those can be attached only once."""
    with ExitStack() as loaded:
        unused = {
            probe.subject: [bpf_calls.load(given.loadables[probe.subject], loaded) for _ in sets]
            for probe, sets in tries
            if probe.subject in capability_probes.ATTACHED_ONCE and probe.attaches
        }
        return tried_by(who, given, lambda trier: body(trier, unused))


def _become_root_of_a_namespace(more: int = 0) -> None:
    """Enter a user namespace, with root mapped to this uid, and a network namespace that belongs to it."""
    # after a change of uid the files of /proc/self are root's
    if _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_DUMPABLE")
    uid, gid = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET | more)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _in_user_namespace(given: Given, body: Callable[[Trier], _T]) -> _T:
    _become_root_of_a_namespace()
    return body(Trier(given))


def _with_token(given: Given, body: Callable[[Trier], _T], delegator: socket.socket) -> _T:
    """Open a bpffs in the namespace, have it made delegating by the host's root, take a token of it."""
    _become_root_of_a_namespace(os.CLONE_NEWNS)
    opened = _call(_FSOPEN, b"bpf", _CLOEXEC)
    socket.send_fds(delegator, [b"x"], [opened])
    said, fds, _, _ = socket.recv_fds(delegator, 1 << 12, 1)
    if not fds:
        raise RuntimeError(f"the host's root could not make the bpffs delegating: {said.decode() or 'it ended'}")
    folder = os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fds[0])
    return body(Trier(given, token=steps.create_token(folder), delegating=folder))


@contextmanager
def _delegator() -> Iterator[socket.socket]:
    """Have a child with every privilege that makes one bpffs delegating: only CAP_SYS_ADMIN of the host may."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ours.close()
            _delegate(theirs)
            status = 0
        except BaseException as error:  # noqa: BLE001  whatever it is, the one that waits for an answer raises it
            theirs.send(f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(status)
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
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
