"""What this kernel allows with which capabilities: measured in steps, and handed to the host.

These tests pass whatever the kernel answers; test_table.py judges.
"""

from __future__ import annotations

import pytest

from harness import capability_table
from harness.capability_table import Table
from harness.guest.capability_table import SETTINGS, Part
from harness.guest.fixtures import Record
from suites.capabilities.conftest import Measured


@pytest.mark.parametrize("assignment", ["", *SETTINGS], ids=["defaults", *SETTINGS])
def test_everything_is_tried_with_every_set(measured: Measured, assignment: str) -> None:
    """Each cell is ok or an errno of a real process with that set, anything else an exception here."""
    assert measured(assignment).cells


def test_the_table_is_handed_to_the_host(table: Table, parts: dict[str, Part], record: Record) -> None:
    """As the facts `capabilities`, with what measuring took of the guest's processors beside it."""
    record(capability_table.FACTS, table.to_json())
    record("capability-seconds", {name or "defaults": round(part.seconds, 2) for name, part in parts.items()})
