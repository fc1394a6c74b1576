"""An LSM program where `bpf` is among the active security modules, and where it is not: only then is it called.

Kernel: bpf_lsm_init() adds the hooks' BPF side to the lists that security_...() goes through, when `bpf` is in `lsm=`
(or CONFIG_LSM); a trampoline is attached to bpf_lsm_...() all the same when it is not, and nothing calls that function.
"""

from __future__ import annotations

import os

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.pytest.marks import GUEST_FACTS, boots_with
from kernel_matrix.shared.outcomes.features import GuestFacts

_COUNTER = steps.MapSpec("array", key=4, value=8, entries=1)
_CALLS = 10


def _heard_calls() -> int:
    """Attach a program to the LSM hook of bpf(), make ten bpf() calls, and return how many it counted."""
    with steps.loaded(steps.object_path("fixtures/variants"), "variant_lsm") as bpf_object:
        before = int.from_bytes(steps.lookup(bpf_object.maps["runs"], _COUNTER, key=0), "little")
        assert before == 0
        with steps.by_section(bpf_object.programs["variant_lsm"]):
            for _ in range(_CALLS):
                os.close(steps.create_map(_COUNTER))
        # detached: reading what it counted is not counted
        return int.from_bytes(steps.lookup(bpf_object.maps["runs"], _COUNTER, key=0), "little")


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> GuestFacts:
    """Return what the manifest says about this guest's kernel."""
    return request.config.stash[GUEST_FACTS]


def test_an_lsm_program_is_called_exactly_where_bpf_is_active(facts: GuestFacts) -> None:
    """It loads and attaches in both cases, and nothing refuses it: counting is the only way to notice."""
    active = machine.active_lsms()
    assert active is not None
    assert ("bpf" in active) == ("lsm_active" in facts.features)
    assert _heard_calls() == (_CALLS if "bpf" in active else 0)


@boots_with("lsm_bpf")
def test_it_is_called_once_bpf_is_in_the_list() -> None:
    """The same program on the same kernel, with another command line."""
    active = machine.active_lsms()
    assert active is not None
    assert "bpf" in active
    assert _heard_calls() == _CALLS
