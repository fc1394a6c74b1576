"""What this kernel allows with which capabilities is what baselines/capabilities.json says.

Expected values are measured and reviewed, not written: the notes on what they mean in the kernel's source are in
docs/capabilities.md. How to record them: ``nox -s capabilities -- --update --kernel NAME``.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from harness import capabilities, capability_table
from harness.capability_table import Context, Table
from harness.features import GuestFacts
from harness.guest import steps
from harness.guest.capability_probes import BPF_SYSCTL, Given, probes
from harness.guest.capability_table import answered, concerned, setting, value, who
from harness.guest.loaders.libbpf import opened
from harness.guest.marks import spoils_guest
from harness.guest.privilege import NOBODY, Cap, run_as
from harness.guest.refusal import Refused
from harness.guest.steps import object_path
from suites.capabilities.conftest import Measured

_FILE = Path(__file__).parents[2] / capability_table.BASELINE
_SETS = tuple(frozenset(names) for names in ((), {"BPF"}, {"BPF", "NET_ADMIN", "PERFMON"}, {"SYS_ADMIN"}))


@pytest.fixture
def recorded(facts: GuestFacts) -> Table:
    """Return the baseline of this kernel."""
    tables = capability_table.read(_FILE.read_text())
    if facts.kernel not in tables:
        pytest.fail(
            f"{capability_table.BASELINE} has no kernel {facts.kernel}: record it with"
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


@pytest.mark.parametrize("assignment", ["unprivileged_bpf_disabled=0", "perf_event_paranoid=-1"])
def test_a_sysctl_changes_nothing_else(given: Given, facts: GuestFacts, measured: Measured, assignment: str) -> None:
    """What is not tried under all values of a sysctl ends the same at its most permissive one."""
    touched = {probe.name for probe in concerned(assignment)}
    others = [probe for probe in probes() if probe.single and probe.name not in touched]
    usual = {person: measured(person, "").cells for person in who(facts.features)}
    with setting(assignment):
        found = answered(given, facts.features, others, _SETS)
    changed = [
        f"{name} as {person} with {capabilities.show(caps)}: {expected[caps]} -> {answer}"
        for (name, person), answers in found.items()
        for expected in [capabilities.answers(usual[person][name][Context(person)])]
        for caps, answer in answers.items()
        if expected[caps] != answer
    ]
    assert not changed


@spoils_guest("unprivileged_bpf_disabled=1 stays until the next boot")
def test_unprivileged_bpf_disabled_1_is_2_for_good(
    given: Given, facts: GuestFacts, measured: Measured, refused: Refused
) -> None:
    """Every check asks whether it is 0; only bpf_unpriv_handler() knows 1, and lets nothing but 1 replace it.

    So this is the guest's last test: a fresh guest for it alone would measure the same, a boot later.
    """
    two = "" if value(BPF_SYSCTL) == 2 else f"{BPF_SYSCTL}=2"
    expected = {
        (name, context.who): rules
        for person in who(facts.features)
        for name, lines in measured(person, two).cells.items()
        if name in {probe.name for probe in concerned(BPF_SYSCTL)}
        for context, rules in lines.items()
    }
    steps.set_sysctl(BPF_SYSCTL, 1)
    found = answered(given, facts.features, concerned(BPF_SYSCTL))
    assert {cell: capabilities.rules(answers) for cell, answers in found.items()} == expected
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
    given: Given, measured: Measured, name: str, stage: str, assignments: tuple[str, ...]
) -> None:
    """A user that owns nothing opens, loads and attaches all programs with libbpf, with each minimal set.

    ``given`` lifts the limit of locked memory, which kernels without memcg_accounting charge maps to.
    """
    assert given.loadables

    def whole() -> None:
        with opened(object_path(name)) as loaded:
            loaded.attach()

    for assignment in assignments:
        sets = capabilities.parse_sets(
            measured("nobody", assignment).minimum[f"{name} {stage}"][Context("nobody", assignment)]
        )
        assert sets
        with setting(assignment):
            for caps in sets:
                run_as(whole, caps=[Cap[each] for each in caps], uid=NOBODY)
