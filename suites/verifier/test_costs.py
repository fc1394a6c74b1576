"""What the shipped programs cost each kernel's verifier: measured, handed to the host, and gated by the baseline.

The expected figures are in baselines/matrix; `comparison` judges them, with the threshold of vmimages/kernels.toml.
"""

from __future__ import annotations

from dataclasses import asdict

import pytest

from kernel_matrix.guest.bpf import costing, steps
from kernel_matrix.guest.bpf.calls.instructions import MAX_INSNS
from kernel_matrix.guest.pytest.fixtures import Record
from kernel_matrix.shared.bpf.costs import COSTS, Cost

_OBJECTS = ("xdp_packet_counter", "kprobe_execve", "tracepoint_network")


def test_the_reference_costs_what_it_is() -> None:
    """A straight line is gone through once: no stack, and no jump that a state would have to be kept for.

    Its first instruction is the one where the verifier may keep a state (is_prune_point() is true of it before 6.3).
    """
    cost = costing.reference()
    assert cost.instructions == costing.REFERENCE == MAX_INSNS
    assert cost.stack == 0
    assert cost.states in {0, 1}


def test_the_costs_are_handed_to_the_host(record: Record) -> None:
    """Every program of every shipped object, by its name."""
    all_costs: dict[str, Cost] = {}
    for name in _OBJECTS:
        costs = costing.of_object(steps.object_path(name))
        assert set(costs) == set(steps.kinds(steps.object_path(name)))
        all_costs |= costs
    record(COSTS, {name: asdict(cost) for name, cost in all_costs.items()})


@pytest.mark.parametrize("name", _OBJECTS)
def test_a_program_costs_the_same_again(name: str) -> None:
    """Nothing but the time depends on when it is loaded."""
    first, second = (
        {name: asdict(cost) | {"load": 0} for name, cost in costing.of_object(steps.object_path(name)).items()}
        for _ in range(2)
    )
    assert first == second
