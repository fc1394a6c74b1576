"""What the capability suites share: the table of the running kernel, measured once, in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kernel_matrix.guest.bpf import leaks, steps
from kernel_matrix.guest.probes import capability_table
from kernel_matrix.guest.probes.capability_place import Resources
from kernel_matrix.guest.probes.capability_table import Part
from kernel_matrix.guest.pytest.marks import GUEST_FACTS
from kernel_matrix.guest.pytest.refusal import refused
from kernel_matrix.guest.system.upkeep import processors
from kernel_matrix.shared.outcomes.capability_table import Table
from kernel_matrix.shared.outcomes.features import GuestFacts

__all__ = ["refused"]

#: who tries, a setting (``name=value``, empty for the defaults) -> what came of everything so
Measured = Callable[[str, str], Part]


@pytest.fixture(scope="session")
def facts(request: pytest.FixtureRequest) -> GuestFacts:
    """Return what the manifest says about this kernel."""
    return request.config.stash[GUEST_FACTS]


@pytest.fixture(scope="package")
def given(facts: GuestFacts) -> Iterator[Resources]:
    """Give what the probes inherit, made once; that it is gone afterwards is checked here, not by each test."""
    before = leaks.present()
    with processors.only_one(), capability_table.resources(facts.programs) as things:
        yield things
    left = leaks.wait_for_release(before)
    assert not left
    # as it must in the next test, whichever that is: 5.10 refuses when what libbpf has lifted is put back
    with steps.loaded(steps.object_path("kprobe_execve"), "trace_execve"):
        pass


@pytest.fixture(scope="session")
def kept() -> dict[tuple[str, str], Part]:
    """Keep what has been measured for the guest's last test too, which comes long after the others of the package."""
    return {}


@pytest.fixture(scope="package")
def measured(given: Resources, facts: GuestFacts, kept: dict[tuple[str, str], Part]) -> Measured:
    """Give a function that measures as one person under a setting, once: an emulated guest takes seconds for it."""

    def measure(person: str, assignment: str) -> Part:
        if (person, assignment) not in kept:
            kept[person, assignment] = capability_table.measure(given, person, assignment, facts)
        return kept[person, assignment]

    return measure


@pytest.fixture(scope="package")
def parts(measured: Measured, facts: GuestFacts) -> dict[str, list[Part]]:
    """Return what came of everything: setting -> of each who tries."""
    return {
        assignment: [measured(person, assignment) for person in capability_table.who(facts.features)]
        for assignment in ("", *capability_table.SETTINGS)
    }


@pytest.fixture(scope="package")
def table(parts: dict[str, list[Part]], facts: GuestFacts) -> Table:
    """Return the table of this kernel."""
    return capability_table.joined((part for group in parts.values() for part in group), facts.programs)
