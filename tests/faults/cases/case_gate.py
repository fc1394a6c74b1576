"""What a run finds that is compared with a baseline: a pass, a skip, a failure, and what a program costs."""

from __future__ import annotations

from dataclasses import asdict

from kernel_matrix.guest.bpf import costing, steps
from kernel_matrix.guest.pytest.fixtures import Record
from kernel_matrix.guest.pytest.marks import requires
from kernel_matrix.shared.bpf.costs import COSTS


def test_costs(record: Record) -> None:
    """Hands the cost of a shipped program to the host."""
    costs = costing.of_object(steps.object_path("xdp_packet_counter"))
    record(COSTS, {name: asdict(cost) for name, cost in costs.items()})


def test_passes() -> None:
    """Passes."""


@requires("tcx")
def test_skipped() -> None:
    """Is skipped on 6.1."""


def test_fails() -> None:
    """Fails."""
    raise AssertionError("as the program under test would make it")
