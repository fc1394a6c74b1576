"""A program of each type at each hook: the right one attaches, all others are refused, most with EINVAL.

Kernel: bpf_prog_get_type() and bpf_prog_get_type_dev() compare the program's type with the one that is wanted;
link_create() and bpf_raw_tracepoint_open() switch over it; perf_event_set_bpf_prog() compares it with the event's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls import bpf_calls
from kernel_matrix.guest.pytest.marks import requires
from kernel_matrix.guest.pytest.refusal import Refused
from suites.attach.conftest import Interfaces

_TYPES = {
    "socket_filter",
    "xdp",
    "sched_cls",
    "cgroup_skb",
    "kprobe",
    "tracepoint",
    "raw_tracepoint",
    "fentry",
    "lsm",
}

#: attaches for as long as the stack lasts
Attach = Callable[[steps.Program, Interfaces, ExitStack], object]


def _xdp_link(program: steps.Program, interfaces: Interfaces, undo: ExitStack) -> object:
    return bpf_calls.link(program.fd, interfaces.end, "xdp", undo)


def _tcx_link(program: steps.Program, interfaces: Interfaces, undo: ExitStack) -> object:
    return bpf_calls.link(program.fd, interfaces.end, "tcx_ingress", undo)


def _cgroup(program: steps.Program, _: Interfaces, undo: ExitStack) -> None:
    group = os.open("/sys/fs/cgroup", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    undo.callback(os.close, group)
    bpf_calls.cgroup(program.fd, group, "cgroup_inet_ingress", undo)


#: hook -> how to attach there, and the types that it takes
_HOOKS: dict[str, tuple[Attach, set[str]]] = {
    "socket": (lambda program, _, undo: bpf_calls.socket_filter(program.fd, undo), {"socket_filter"}),
    "XDP by netlink": (lambda program, place, undo: bpf_calls.xdp_netlink(program.fd, place.end, undo), {"xdp"}),
    "classifier": (lambda program, place, undo: bpf_calls.clsact(program.fd, place.end, undo), {"sched_cls"}),
    "cgroup": (_cgroup, {"cgroup_skb"}),
    "kprobe": (lambda program, _, undo: undo.enter_context(steps.kprobe(program, "do_nanosleep")), {"kprobe"}),
    "tracepoint": (
        lambda program, _, undo: undo.enter_context(steps.tracepoint(program, "sched", "sched_switch")),
        {"tracepoint"},
    ),
    "raw tracepoint": (
        lambda program, _, undo: bpf_calls.raw_tracepoint(program.fd, "sched_switch", undo),
        {"raw_tracepoint"},
    ),
    # fentry and LSM programs were loaded for one function, so no hook is named
    "its own function": (lambda program, _, undo: bpf_calls.raw_tracepoint(program.fd, None, undo), {"fentry", "lsm"}),
}
#: bpf_raw_tracepoint_open() reads the name, which is not there, before it looks for the tracepoint
_OTHER_ERRNOS = {("its own function", "raw_tracepoint"): errno.EFAULT}


@contextmanager
def _program(kind: str) -> Iterator[steps.Program]:
    name = f"hook_{kind}"
    with steps.loaded(steps.object_path("fixtures/hooks"), name) as bpf_object:
        yield bpf_object.programs[name]


def _wrong_pairs() -> list[tuple[str, str]]:
    return [(hook, kind) for hook, (_, right) in _HOOKS.items() for kind in sorted(_TYPES - right)]


def _check(refused: Refused, interfaces: Interfaces, attach: Attach, kind: str, number: int | None) -> None:
    with _program(kind) as program, ExitStack() as undo:
        if number is None:
            attach(program, interfaces, undo)
        else:
            with refused(number, stage="attach"):
                attach(program, interfaces, undo)


@pytest.mark.parametrize(("hook", "kind"), _wrong_pairs())
def test_a_program_of_another_type_is_refused(refused: Refused, interfaces: Interfaces, hook: str, kind: str) -> None:
    """And the one of the right type attaches, in the same place."""
    attach, right = _HOOKS[hook]
    _check(refused, interfaces, attach, kind, _OTHER_ERRNOS.get((hook, kind), errno.EINVAL))
    for right_kind in right:
        _check(refused, interfaces, attach, right_kind, None)


@requires("xdp_link")
@pytest.mark.parametrize("kind", sorted(_TYPES - {"xdp"}))
def test_an_xdp_link_takes_xdp_programs_alone(refused: Refused, interfaces: Interfaces, kind: str) -> None:
    """link_create(): EINVAL."""
    _check(refused, interfaces, _xdp_link, kind, errno.EINVAL)
    _check(refused, interfaces, _xdp_link, "xdp", None)


@requires("tcx")
@pytest.mark.parametrize("kind", sorted(_TYPES - {"sched_cls"}))
def test_a_tcx_link_takes_classifiers_alone(refused: Refused, interfaces: Interfaces, kind: str) -> None:
    """link_create(): EINVAL."""
    _check(refused, interfaces, _tcx_link, kind, errno.EINVAL)
    _check(refused, interfaces, _tcx_link, "sched_cls", None)


@pytest.mark.parametrize(("missing", "right"), [("fentry_missing", "fentry"), ("lsm_missing", "lsm")])
def test_a_function_to_trace_that_does_not_exist(refused: Refused, missing: str, right: str) -> None:
    """libbpf_find_attach_btf_id(): the kernel's BTF has no such function, so it is not even loaded: ESRCH."""
    with refused(errno.ESRCH, stage="load") as refusal, _program(missing):
        pass
    assert "failed to find kernel BTF type ID of" in refusal.log
    with _program(right):
        pass
