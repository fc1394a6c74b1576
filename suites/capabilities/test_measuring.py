"""What this kernel allows with which capabilities: measured in steps, and handed to the host.

These tests pass whatever the kernel answers; test_table.py judges.
"""

from __future__ import annotations

import pytest

from kernel_matrix.guest.probes.capability_table import SETTINGS, Part, tried
from kernel_matrix.guest.probes.users import TOKEN
from kernel_matrix.guest.pytest.fixtures import Record
from kernel_matrix.guest.pytest.marks import requires
from kernel_matrix.shared.outcomes import capability_table
from kernel_matrix.shared.outcomes.capability_table import USERS, Table
from kernel_matrix.shared.outcomes.features import GuestFacts
from suites.capabilities.conftest import Measured

_WHO = [pytest.param(name, marks=requires("bpf_token")) if name == TOKEN else name for name in USERS]


@pytest.mark.parametrize("person", _WHO)
@pytest.mark.parametrize("assignment", ["", *SETTINGS], ids=["defaults", *SETTINGS])
def test_everything_is_tried_with_every_set(
    measured: Measured, facts: GuestFacts, assignment: str, person: str
) -> None:
    """Each cell is ok or an errno of a real process with that set, anything else an exception here."""
    part = measured(person, assignment)
    assert part.cells.keys() == {probe.name for probe in tried(person, assignment, facts)}


def test_the_table_is_handed_to_the_host(table: Table, parts: dict[str, list[Part]], record: Record) -> None:
    """As the facts `capabilities`, with what measuring took of the guest's processors beside it."""
    record(capability_table.FACTS, table.to_json())
    seconds = {name or "defaults": sum(part.seconds for part in group) for name, group in parts.items()}
    record("capability-seconds", {name: round(duration, 2) for name, duration in seconds.items()})
