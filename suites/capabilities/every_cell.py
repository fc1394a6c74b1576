"""The complete proof of the capability table: every cell that was derived, read by the rule, against a try of it.

A run of the suites does not collect this file, which takes several times what measuring takes: ``nox -s capabilities --
--update`` names it beside the tests that measure, so that every cell of a table that is recorded was tried.
"""

from __future__ import annotations

import pytest

from harness import capabilities
from harness.capability_table import PEOPLE, Context, Table
from harness.features import GuestFacts
from harness.guest import people
from harness.guest.capability_place import Given
from harness.guest.capability_table import SETTINGS, derived, setting
from harness.guest.marks import requires

_WHO = [pytest.param(name, marks=requires("bpf_token")) if name == people.TOKEN else name for name in PEOPLE]


@pytest.mark.parametrize("person", _WHO)
@pytest.mark.parametrize("assignment", ["", *SETTINGS], ids=["defaults", *SETTINGS])
def test_every_cell_is_what_comes_of_trying(
    given: Given, facts: GuestFacts, table: Table, assignment: str, person: str
) -> None:
    """All sixteen sets of every probe that was not measured in this context, and the minimal sets of the shipped."""
    context = Context(person, assignment)
    with setting(assignment):
        found, least = people.measured(person, given, derived(person, assignment, facts.features))
    read = {name: {caps: table.read(name, context, caps) for caps in capabilities.subsets()} for name in found}
    # with a token everything is measured under the defaults
    assert found or (person, assignment) == (people.TOKEN, "")
    assert found == read
    assert least == {name: table.minimal_sets(name, context) for name in least}
