"""Rules, minimal sets and what is said of their changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.shared.outcomes import capabilities
from kernel_matrix.shared.outcomes.capabilities import CAPABILITIES, FILE_CAPABILITIES, OK, subsets

_NAMES = (*CAPABILITIES, *FILE_CAPABILITIES)
sets = st.frozensets(st.sampled_from(_NAMES))
tables = st.lists(st.sampled_from([OK, "EPERM", "EACCES", "EINVAL"]), min_size=16, max_size=16).map(
    lambda answers: dict(zip(subsets(), answers, strict=True))
)


def test_there_are_sixteen_sets_each_after_its_own_subsets() -> None:
    all_sets = subsets()
    assert len(set(all_sets)) == 16
    assert not any(later < earlier for number, earlier in enumerate(all_sets) for later in all_sets[number:])


@given(tables)
def test_rules_say_the_whole_table(table: dict[frozenset[str], str]) -> None:
    assert capabilities.answers(capabilities.rules(table)) == table


@given(tables, tables)
def test_two_tables_have_equal_rules_only_when_equal(
    one: dict[frozenset[str], str], other: dict[frozenset[str], str]
) -> None:
    """Two tables have the same rules only when the tables are the same."""
    assert (capabilities.rules(one) == capabilities.rules(other)) == (one == other)


def test_rules_read_like_the_kernels_checks() -> None:
    """BPF and NET_ADMIN to be let in, PERFMON to subtract pointers, SYS_ADMIN for all."""

    def answer(caps: frozenset[str]) -> str:
        if "SYS_ADMIN" in caps or caps >= {"BPF", "NET_ADMIN", "PERFMON"}:
            return OK
        return "EACCES" if caps >= {"BPF", "NET_ADMIN"} else "EPERM"

    rules = "EPERM | BPF+NET_ADMIN EACCES | BPF+NET_ADMIN+PERFMON ok | SYS_ADMIN ok"
    assert capabilities.rules({caps: answer(caps) for caps in subsets()}) == rules


@pytest.mark.parametrize(
    "text", ["", "BPF ok", "EPERM | ok", "EPERM | CAP_BPF ok", "EPERM | BPF ok | ", "EPERM | zebra ok"]
)
def test_what_is_not_a_list_of_rules_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a list|unknown capability"):
        capabilities.answers(text)


@given(st.lists(sets))
def test_minimal_sets_are_an_antichain_below_all(given_sets: list[frozenset[str]]) -> None:
    antichain = capabilities.minimal(given_sets)
    assert not any(one < other for one in antichain for other in antichain)
    assert all(any(one <= given_set for one in antichain) for given_set in given_sets)
    assert set(antichain) <= set(given_sets)


@given(st.lists(sets, max_size=6))
def test_the_search_finds_exactly_the_minimal_sets(enough: list[frozenset[str]]) -> None:
    """Of whatever works with one of some sets and everything beyond."""
    tried: list[frozenset[str]] = []

    def works(caps: frozenset[str]) -> bool:
        tried.append(caps)
        return any(one <= caps for one in enough)

    assert capabilities.search(works, _NAMES) == capabilities.minimal(enough)
    assert len(tried) == len(set(tried))


@given(st.lists(sets, max_size=6))
def test_what_is_known_is_not_tried_again(enough: list[frozenset[str]]) -> None:
    """Neither the sets that are known, nor what contains one that works, nor what is part of one that is refused."""
    known = {caps: any(one <= caps for one in enough) for caps in subsets()}
    tried: dict[frozenset[str], bool] = {}

    def works(caps: frozenset[str]) -> bool:
        assert not any(answer and one <= caps for one, answer in (known | tried).items())
        assert not any(not answer and caps <= one for one, answer in (known | tried).items())
        tried[caps] = any(one <= caps for one in enough)
        return tried[caps]

    assert capabilities.search(works, _NAMES, known) == capabilities.minimal(enough)


def test_a_capability_that_takes_away_is_an_error() -> None:
    with pytest.raises(ValueError, match="a larger set is refused"):
        capabilities.search(lambda _: True, _NAMES, {frozenset(): True, frozenset({"BPF"}): False})


@given(st.lists(sets, max_size=4), st.lists(sets, max_size=4))
def test_both_steps_work_with_exactly_the_joined_sets(one: list[frozenset[str]], other: list[frozenset[str]]) -> None:
    joined = capabilities.both(one, other)
    for caps in subsets(_NAMES):
        both = any(member <= caps for member in one) and any(member <= caps for member in other)
        assert both == any(member <= caps for member in joined)
    assert capabilities.minimal(joined) == joined


@given(tables)
def test_the_witnesses_have_every_answer(table: dict[frozenset[str], str]) -> None:
    witnesses = capabilities.witnesses(table)
    assert {table[caps] for caps in witnesses} == set(table.values())
    for answer in set(table.values()):
        getting = [caps for caps in subsets() if table[caps] == answer]
        assert {getting[0], getting[-1]} <= set(witnesses)


@given(st.lists(sets).map(capabilities.minimal))
def test_minimal_sets_round_trip(minimal_sets: tuple[frozenset[str], ...]) -> None:
    assert capabilities.parse_sets(capabilities.show_sets(minimal_sets)) == minimal_sets


def test_no_set_and_the_empty_set_are_different_words() -> None:
    assert capabilities.show_sets(()) == "never"
    assert capabilities.show_sets([frozenset()]) == "nothing"


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("BPF+NET_ADMIN", "BPF+NET_ADMIN+PERFMON", ["minimal set grew: {BPF, NET_ADMIN} -> {BPF, NET_ADMIN, PERFMON}"]),
        ("BPF+PERFMON | SYS_ADMIN", "BPF | SYS_ADMIN", ["minimal set shrank: {BPF, PERFMON} -> {BPF}"]),
        ("nothing", "BPF", ["minimal set grew: {} -> {BPF}"]),
        ("BPF", "SYS_ADMIN", ["minimal set gone: {BPF}", "new minimal set: {SYS_ADMIN}"]),
        ("BPF | SYS_ADMIN", "BPF", ["minimal set gone: {SYS_ADMIN}"]),
        ("never", "SYS_ADMIN", ["new minimal set: {SYS_ADMIN}"]),
        ("BPF | SYS_ADMIN", "BPF | SYS_ADMIN", []),
    ],
)
def test_a_change_says_which_set_grew_or_shrank(before: str, after: str, lines: list[str]) -> None:
    changes = capabilities.describe_change(capabilities.parse_sets(before), capabilities.parse_sets(after))
    assert list(changes) == lines


@given(st.lists(sets).map(capabilities.minimal), st.lists(sets).map(capabilities.minimal))
def test_a_change_is_never_silent(before: tuple[frozenset[str], ...], after: tuple[frozenset[str], ...]) -> None:
    assert bool(list(capabilities.describe_change(before, after))) == (before != after)


def test_sets_are_in_counting_order() -> None:
    """The first capability is the lowest bit: {BPF, PERFMON} is 5, {NET_ADMIN, PERFMON} 6, {SYS_ADMIN} 8."""
    ordered = [{"BPF", "PERFMON"}, {"NET_ADMIN", "PERFMON"}, {"SYS_ADMIN"}, {"BPF", "DAC_READ_SEARCH"}]
    assert list(capabilities.minimal(map(frozenset, reversed(ordered)))) == ordered
    shown = capabilities.show_sets(frozenset(caps) for caps in reversed(ordered))
    assert shown == "BPF+PERFMON | NET_ADMIN+PERFMON | SYS_ADMIN | BPF+DAC_READ_SEARCH"


def test_the_largest_set_is_tried_first() -> None:
    """Where it is refused, nothing else needs to be tried."""
    tried: list[frozenset[str]] = []

    def works(caps: frozenset[str]) -> bool:
        tried.append(caps)
        return False

    assert capabilities.search(works, _NAMES) == ()
    assert tried == [frozenset(_NAMES)]


def test_the_search_tries_as_few_sets_as_its_order_allows() -> None:
    """A working set loses one name after the other; what is part of a refused set is not tried again.

    BPF with SYS_ADMIN or with NET_ADMIN is enough: without BPF the first of the largest sets is refused, and so
    {NET_ADMIN, PERFMON} is not tried, where {BPF, NET_ADMIN, PERFMON} is reduced.
    """
    tried: list[str] = []

    def works(caps: frozenset[str]) -> bool:
        tried.append(capabilities.show(caps))
        return "BPF" in caps and not caps.isdisjoint({"SYS_ADMIN", "NET_ADMIN"})

    minimal_sets = capabilities.search(works, CAPABILITIES)
    assert capabilities.show_sets(minimal_sets) == "BPF+NET_ADMIN | BPF+SYS_ADMIN"
    assert tried == [
        "BPF+NET_ADMIN+PERFMON+SYS_ADMIN",
        "NET_ADMIN+PERFMON+SYS_ADMIN",
        "BPF+PERFMON+SYS_ADMIN",
        "BPF+SYS_ADMIN",
        "BPF",
        "BPF+NET_ADMIN+PERFMON",
        "BPF+PERFMON",
        "BPF+NET_ADMIN",
    ]


def test_the_second_step_answers_where_the_first_works() -> None:
    first, second = capabilities.answers("EPERM | BPF ok"), capabilities.answers("EACCES | SYS_ADMIN ok")
    assert capabilities.rules(capabilities.then(first, second)) == "EPERM | BPF EACCES | BPF+SYS_ADMIN ok"


def test_a_refused_set_may_be_as_large_as_a_working_one() -> None:
    known = {frozenset({"BPF"}): True, frozenset({"PERFMON"}): False}
    assert capabilities.search(lambda caps: "BPF" in caps, CAPABILITIES, known) == (frozenset({"BPF"}),)


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (
            "BPF+NET_ADMIN+PERFMON",
            "BPF | NET_ADMIN+PERFMON",
            ["minimal set shrank: {BPF, NET_ADMIN, PERFMON} -> {NET_ADMIN, PERFMON}", "new minimal set: {BPF}"],
        ),
        (
            "BPF",
            "BPF+NET_ADMIN+PERFMON | BPF+SYS_ADMIN",
            ["minimal set grew: {BPF} -> {BPF, SYS_ADMIN}", "new minimal set: {BPF, NET_ADMIN, PERFMON}"],
        ),
    ],
)
def test_a_set_is_compared_with_the_nearest(before: str, after: str, lines: list[str]) -> None:
    changes = capabilities.describe_change(capabilities.parse_sets(before), capabilities.parse_sets(after))
    assert list(changes) == lines


def test_witnesses_are_the_first_and_the_last_set_of_an_answer() -> None:
    table = capabilities.answers("EPERM | BPF ok | SYS_ADMIN EINVAL")
    shown = [capabilities.show(caps) for caps in capabilities.witnesses(table)]
    assert shown == [
        "nothing",
        "BPF",
        "NET_ADMIN+PERFMON",
        "BPF+NET_ADMIN+PERFMON",
        "SYS_ADMIN",
        "BPF+NET_ADMIN+PERFMON+SYS_ADMIN",
    ]
