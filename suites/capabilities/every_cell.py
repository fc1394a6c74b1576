"""The complete proof of the capability table: every cell that was derived, read by the rule, against a try of it.

A run of the suites does not collect this file, which takes several times what measuring takes: ``nox -s capabilities --
--update`` names it beside the tests that measure, so that every cell of a table that is recorded was tried.
"""

from __future__ import annotations

import pytest

from kernel_matrix.guest.probes import users
from kernel_matrix.guest.probes.capability_place import Resources
from kernel_matrix.guest.probes.capability_table import SETTINGS, derived, setting
from kernel_matrix.guest.pytest.marks import requires
from kernel_matrix.shared.outcomes.capability_table import USERS, Context, Table
from kernel_matrix.shared.outcomes.features import GuestFacts

_WHO = [pytest.param(name, marks=requires("bpf_token")) if name == users.TOKEN else name for name in USERS]


@pytest.mark.parametrize("person", _WHO)
@pytest.mark.parametrize("assignment", ["", *SETTINGS], ids=["defaults", *SETTINGS])
def test_every_cell_is_what_comes_of_trying(
    given: Resources, facts: GuestFacts, table: Table, assignment: str, person: str
) -> None:
    """All sixteen sets of every probe that was not measured in this context, and the minimal sets of the shipped."""
    context = Context(person, assignment)
    with setting(assignment):
        cells, least = users.measured(person, given, derived(person, assignment, facts))
    read = {name: table.answers(name, context) for name in cells}
    # with a token everything is measured under the defaults
    assert cells or (person, assignment) == (users.TOKEN, "")
    assert cells == read
    assert least == {name: table.minimal_sets(name, context) for name in least}
