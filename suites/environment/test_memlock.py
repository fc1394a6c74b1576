"""RLIMIT_MEMLOCK, where the kernel still charges maps and programs to it: before 5.11.

Kernel 5.10: bpf_map_charge_init() and __bpf_prog_charge() compare pages with the limit and answer EPERM, whatever the
capabilities; later kernels charge the memory cgroup. CAP_SYS_RESOURCE is left out: libbpf would use it to raise the
limit.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls.instructions import leave, mov
from kernel_matrix.guest.bpf.calls.verifier import verified
from kernel_matrix.guest.pytest.marks import refused_without
from kernel_matrix.guest.system.privilege import Cap, run_as

_CAPS = frozenset(Cap) - {Cap.SYS_RESOURCE}
_PAGE = mmap.PAGESIZE
#: what is charged where the limit counts: the step, and how it is refused
_CHARGED = {
    "map": refused_without("memcg_accounting", errno.EPERM, stage="map_create"),
    "program": refused_without("memcg_accounting", errno.EPERM, stage="load"),
}


def _map(value: int) -> None:
    """Make an array of one value: struct bpf_array and the value, in whole pages."""
    os.close(steps.create_map(steps.MapSpec("array", key=4, value=value, entries=1)))


def _program() -> None:
    with verified("socket_filter", mov(0, 0) + leave()):
        pass


def _limited(limit: int, step: str, value: int = 8) -> None:
    def child() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
        _map(value) if step == "map" else _program()

    run_as(child, caps=_CAPS)


@pytest.mark.parametrize("step", [pytest.param(name, marks=mark) for name, mark in _CHARGED.items()])
def test_nothing_is_charged_to_a_limit_of_0(step: str) -> None:
    """Not even one page is left on kernels that charge."""
    _limited(0, step)


@pytest.mark.parametrize("step", ["map", "program"])
def test_a_page_is_enough_for_what_has_one(step: str) -> None:
    """The limit counts whole pages, and one page is not too much for it."""
    _limited(_PAGE, step)


@_CHARGED["map"]
def test_two_pages_are_not_charged_to_a_limit_of_one() -> None:
    """A value of a page, and struct bpf_array in front of it."""
    _limited(2 * _PAGE, "map", _PAGE)
    _limited(_PAGE, "map", _PAGE)
