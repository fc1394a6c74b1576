"""What the capability table tries, and that the recorded tables say of everything in every context what follows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernel_matrix.guest.probes.capability_place import BPF_SYSCTL, PERF_SYSCTL, Probe
from kernel_matrix.guest.probes.capability_probes import probes
from kernel_matrix.guest.probes.capability_table import SETTINGS, derived, tried
from kernel_matrix.guest.probes.users import TOKEN
from kernel_matrix.shared.outcomes import capability_table
from kernel_matrix.shared.outcomes.capabilities import OK, subsets
from kernel_matrix.shared.outcomes.capability_table import USERS, Context, Table
from kernel_matrix.shared.outcomes.features import GuestFacts
from tests.projects import HERE

_PROBES = {probe.name: probe for probe in probes(HERE.programs)}
_TABLES = capability_table.read(HERE.capabilities.read_text())
_KERNELS = [
    GuestFacts("x", features, features, {"x": features}, HERE.programs)
    for features in (frozenset[str](), frozenset({"unpriv_fd_commands", "bpf_token"}))
]


def _answers(table: Table, name: str, context: Context) -> list[str]:
    return [table.read(name, context, caps) for caps in subsets()]


@pytest.mark.parametrize("facts", _KERNELS, ids=["old", "new"])
@pytest.mark.parametrize("person", USERS)
@pytest.mark.parametrize("assignment", ["", *SETTINGS])
def test_everything_is_either_tried_or_derived(person: str, assignment: str, facts: GuestFacts) -> None:
    measured, rest = ([probe.name for probe in part(person, assignment, facts)] for part in (tried, derived))
    expected = [name for name, probe in _PROBES.items() if probe.takes_token or person != TOKEN]
    assert sorted(measured + rest) == sorted(expected)


@pytest.mark.parametrize("facts", _KERNELS, ids=["old", "new"])
def test_what_is_derived_has_what_it_is_derived_from(facts: GuestFacts) -> None:
    """Under the defaults: what is not measured there is loading and attaching, of which both parts are."""
    for person in USERS:
        names = {probe.name for probe in tried(person, "", facts)}
        for probe in derived(person, "", facts):
            path = probe.stage.partition(" ")[2]
            assert {f"{probe.subject} load", f"{probe.subject} attach {path}"} <= names


@pytest.mark.parametrize("kernel", _TABLES)
def test_a_recorded_table_has_everything_in_every_context(kernel: str) -> None:
    table = _TABLES[kernel]
    assert table.settings == SETTINGS
    assert table.cells.keys() == _PROBES.keys()
    assert table.minimum.keys() == {name for name, probe in _PROBES.items() if probe.shipped}
    people = set(USERS) - {TOKEN} | ({TOKEN} if any(c.who == TOKEN for c in table.cells["array map_create"]) else set())
    for name, probe in _PROBES.items():
        expected = people if probe.takes_token else people - {TOKEN}
        assert {context.who for context in table.contexts(name)} == expected


def _of(kernel: str, *, composed: bool) -> Iterator[tuple[Table, str, Probe, Context]]:
    table = _TABLES[kernel]
    for name, probe in _PROBES.items():
        if probe.composed == composed and name in table.cells:
            yield from ((table, name, probe, context) for context in table.contexts(name))


@pytest.mark.parametrize("kernel", _TABLES)
def test_loading_and_attaching_reads_as_the_first_refusal(kernel: str) -> None:
    """What a review found otherwise in 600 cells: a kprobe at paranoid 2, a socket filter where all may load."""
    for table, name, probe, context in _of(kernel, composed=True):
        if context.who != TOKEN:
            path = probe.stage.partition(" ")[2]
            load = _answers(table, f"{probe.subject} load", context)
            attach = _answers(table, f"{probe.subject} attach {path}", context)
            first = [second if one == OK else one for one, second in zip(load, attach, strict=True)]
            assert _answers(table, name, context) == first, f"{name}, {context}"


@pytest.mark.parametrize("kernel", _TABLES)
def test_a_second_sysctl_changes_only_what_depends_on_it(kernel: str) -> None:
    """What a review found otherwise in 452 cells: under two sysctls what depends on one is as under that one."""
    for table, name, probe, context in _of(kernel, composed=False):
        if "&" in context.sysctl:
            alone = [setting for setting in context.sysctl.split("&") if setting.partition("=")[0] in probe.sysctls]
            if len(alone) < 2:
                as_under = Context(context.who, "".join(alone))
                assert _answers(table, name, context) == _answers(table, name, as_under), f"{name}, {context}"


@pytest.mark.parametrize("kernel", _TABLES)
def test_a_capability_never_takes_away_what_less_allows(kernel: str) -> None:
    """So minimal sets say all there is to say of what works."""
    table = _TABLES[kernel]
    for name, lines in table.cells.items():
        for context in lines:
            working = {caps for caps in subsets() if table.read(name, context, caps) == OK}
            assert all(more in working for less in working for more in subsets() if less <= more), f"{name}, {context}"


@pytest.mark.parametrize("kernel", _TABLES)
def test_cells_and_minimal_sets_say_the_same(kernel: str) -> None:
    """Of a shipped program, for the sets of the four capabilities, in every context."""
    table = _TABLES[kernel]
    for name in table.minimum:
        for context in table.contexts(name):
            least = table.minimal_sets(name, context)
            for caps in subsets():
                works = table.read(name, context, caps) == OK
                assert works == any(one <= caps for one in least), f"{name}, {context}"


def test_what_depends_on_both_sysctls_is_attached_by_perf() -> None:
    both = {name for name, probe in _PROBES.items() if {BPF_SYSCTL, PERF_SYSCTL} <= set(probe.sysctls)}
    kinds = ("kprobe", "tracepoint", "uprobe", "perf_event")
    assert all(name.startswith(kinds) for name in both)
