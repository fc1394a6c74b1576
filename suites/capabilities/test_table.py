"""What this kernel allows with which capabilities is what baselines/capabilities.json says.

Expected values are measured and reviewed, not written: the notes on what they mean in the kernel's source are in
docs/capabilities.md. How to record them: ``nox -s capabilities -- --update --kernel NAME``.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.loaders.libbpf import opened
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.guest.probes.capability_place import BPF_SYSCTL, PERF_SYSCTL, Resources
from kernel_matrix.guest.probes.capability_table import derived, differences, setting, tried, value, who
from kernel_matrix.guest.pytest.marks import spoils_guest
from kernel_matrix.guest.pytest.refusal import Refused
from kernel_matrix.guest.system.privilege import NOBODY, Cap, run_as
from kernel_matrix.shared.outcomes import capabilities, capability_table
from kernel_matrix.shared.outcomes.capability_table import Context, Table
from kernel_matrix.shared.outcomes.features import GuestFacts
from suites.capabilities.conftest import Measured

_FILE = Path(__file__).parents[2] / "baselines" / "capabilities.json"


@pytest.fixture(scope="module")
def recorded(facts: GuestFacts) -> Table:
    """Return the baseline of this kernel."""
    tables = capability_table.read(_FILE.read_text(), only={facts.kernel})
    if facts.kernel not in tables:
        pytest.fail(
            f"baselines/{_FILE.name} has no kernel {facts.kernel}: record it with"
            f" `nox -s capabilities -- --update --kernel {facts.kernel}` and review it",
            pytrace=False,
        )
    return tables[facts.kernel]


def _same(differences: list[str]) -> None:
    if differences:
        pytest.fail("\n".join(differences), pytrace=False)


def test_the_minimal_sets_are_as_recorded(facts: GuestFacts, table: Table, recorded: Table) -> None:
    """For each shipped program, stage and path: no set has grown, shrunk, come or gone."""
    _same(capability_table.compare_minimum(facts.kernel, recorded, table))


def test_every_cell_is_as_recorded(facts: GuestFacts, table: Table, recorded: Table) -> None:
    """Whatever is tried, by whom and with which set, ends with the errno that is recorded, or works."""
    _same(capability_table.compare_cells(facts.kernel, recorded, table))


#: the defaults, and each sysctl at its most permissive value: perf_allow_cpu() and its kin refuse above a value, so
#: what is the same at -1 and at the default is the same in between (all of it is tried by every_cell.py)
_ENDS = ["", f"{BPF_SYSCTL}=0", f"{PERF_SYSCTL}=-1", f"{BPF_SYSCTL}=0&{PERF_SYSCTL}=-1"]


@pytest.mark.parametrize("assignment", _ENDS, ids=["defaults", *_ENDS[1:]])
def test_what_is_derived_is_what_comes_of_trying(
    given: Resources, facts: GuestFacts, table: Table, assignment: str
) -> None:
    """Of every cell that the table has and was not measured for it; of each line the sets that witness its answers."""
    mismatches: list[str] = []
    with setting(assignment):
        for person in who(facts.features):
            context = Context(person, assignment)
            expected = {probe: table.answers(probe.name, context) for probe in derived(person, assignment, facts)}
            mismatches += differences(given, person, expected)
    _same(mismatches)


@spoils_guest("unprivileged_bpf_disabled=1 stays until the next boot")
def test_unprivileged_bpf_disabled_1_is_2_for_good(
    given: Resources, facts: GuestFacts, measured: Measured, refused: Refused
) -> None:
    """Every check asks whether it is 0; only bpf_unpriv_handler() knows 1, and lets nothing but 1 replace it.

    So this is the guest's last test: a fresh guest for it alone would measure the same, a boot later.
    """
    two = "" if value(BPF_SYSCTL) == 2 else f"{BPF_SYSCTL}=2"
    people = who(facts.features)
    cells = {person: measured(person, two).cells for person in people}
    steps.set_sysctl(BPF_SYSCTL, 1)
    mismatches: list[str] = []
    for person in people:
        probes = [probe for probe in tried(person, two, facts) if BPF_SYSCTL in probe.sysctls]
        lines = {probe: cells[person][probe.name][Context(person, two)] for probe in probes}
        expected = {probe: capabilities.answers(line) for probe, line in lines.items()}
        mismatches += differences(given, person, expected)
    _same(mismatches)
    for other in (0, 2):
        with refused(errno.EPERM, stage="sysctl"):
            steps.set_sysctl(BPF_SYSCTL, other)
    assert value(BPF_SYSCTL) == 1


_WHOLE = [
    ("kprobe_execve", "load+attach perf", ("perf_event_paranoid=2", "")),
    ("tracepoint_network", "load+attach tracefs", ("perf_event_paranoid=2", "")),
]


@pytest.mark.parametrize(("name", "stage", "assignments"), _WHOLE, ids=[name for name, *_ in _WHOLE])
def test_a_minimal_set_carries_a_whole_object(
    given: Resources, table: Table, name: str, stage: str, assignments: tuple[str, ...]
) -> None:
    """A user that owns nothing opens, loads and attaches all programs with libbpf, with each minimal set.

    ``given`` lifts the limit of locked memory, which kernels without memcg_accounting charge maps to.
    """
    assert given.loadables

    def whole() -> None:
        with opened(object_path(name)) as loaded:
            loaded.attach()

    for assignment in assignments:
        sets = table.minimal_sets(f"{name} {stage}", Context("nobody", assignment))
        assert sets
        with setting(assignment):
            for caps in sets:
                run_as(whole, caps=[Cap[cap] for cap in caps], uid=NOBODY)
