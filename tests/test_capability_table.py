"""The file with the tables, and what a comparison says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes import capabilities, capability_table
from kernel_matrix.shared.outcomes.capabilities import OK, subsets
from kernel_matrix.shared.outcomes.capability_table import Context, Table, compare_cells, compare_minimum
from tests.projects import HERE

_SETTINGS = (
    *("unprivileged_bpf_disabled=0", "perf_event_paranoid=-1", "perf_event_paranoid=0"),
    *(f"unprivileged_bpf_disabled=0&perf_event_paranoid={value}" for value in (-1, 0)),
)
_DEFAULTS = {"unprivileged_bpf_disabled": 2, "perf_event_paranoid": 3}
_RULES = ["EPERM", "ok", "EPERM | BPF ok", "EPERM | BPF+PERFMON EACCES | SYS_ADMIN ok"]


@st.composite
def lines(draw: st.DrawFn, texts: list[str]) -> dict[str, dict[Context, str]]:
    rows: dict[str, dict[Context, str]] = {}
    for name in draw(st.sets(st.sampled_from(["xdp load", "xdp attach link", "array map_create"]))):
        people = draw(st.sets(st.sampled_from(["root", "nobody", "userns"]), min_size=1))
        contexts = [Context(who, sysctl) for sysctl in ("", *_SETTINGS) for who in sorted(people)]
        rows[name] = {context: draw(st.sampled_from(texts)) for context in contexts}
    return rows


tables = st.builds(
    Table,
    st.just(_DEFAULTS),
    st.just(_SETTINGS),
    lines(["never", "nothing", "BPF", "BPF+PERFMON | SYS_ADMIN"]),
    lines(_RULES),
)


@given(tables)
def test_a_table_comes_back_from_the_file_as_it_went(table: Table) -> None:
    text = capability_table.write({"6.1": table}, ["6.1"])
    back = capability_table.read(text)["6.1"]
    assert compare_cells("6.1", table, back) == compare_minimum("6.1", table, back) == []
    assert capability_table.write({"6.1": back}, ["6.1"]) == text


@given(tables, tables)
def test_a_comparison_is_silent_only_about_equal_tables(one: Table, other: Table) -> None:
    differences = compare_cells("6.1", one, other) + compare_minimum("6.1", one, other)
    assert bool(differences) == ((one.minimum, one.cells) != (other.minimum, other.cells))


@given(tables)
def test_what_the_file_says_is_read_as_it_was_measured(table: Table) -> None:
    """Every cell, by the rule: a line of its own or the defaults', whatever was measured and left out as equal."""
    back = capability_table.read(capability_table.write({"6.1": table}, ["6.1"]))["6.1"]
    for name, lines in table.cells.items():
        assert set(back.contexts(name)) == lines.keys()
        for context, text in lines.items():
            expected = capabilities.answers(text)
            assert {caps: back.read(name, context, caps) for caps in subsets()} == expected
            assert back.answers(name, context) == expected
    for name, lines in table.minimum.items():
        for context, text in lines.items():
            assert back.minimal_sets(name, context) == capabilities.parse_sets(text)


def test_only_the_kernels_asked_for_are_read() -> None:
    table = _table("BPF", "ok")
    text = capability_table.write({"5.10": table, "6.1": table}, ["5.10", "6.1"])
    assert capability_table.read(text, only={"6.1", "7.3"}).keys() == {"6.1"}
    assert capability_table.read(text).keys() == {"5.10", "6.1"}


def test_what_was_not_tried_is_not_read() -> None:
    table = _table("BPF", "ok")
    for probe, context in (
        ("xdp attach link", Context("root")),
        ("xdp load", Context("token")),
        ("xdp load", Context("root", "perf_event_paranoid=7")),
    ):
        with pytest.raises(KeyError):
            table.read(probe, context, frozenset())


_BPF, _PERF = "unprivileged_bpf_disabled=0", "perf_event_paranoid=-1"
_TOGETHER = f"{_BPF}&{_PERF}"


def _derived(cells: dict[str, dict[str, str]], name: str, sysctl: str) -> str:
    """Derive a table of what root was measured to be answered; return one line."""
    lines = {row: {Context("root", where): text for where, text in texts.items()} for row, texts in cells.items()}
    measured = Table(_DEFAULTS, _SETTINGS, {}, lines)
    order = ["kprobe load", "kprobe attach link", "kprobe load+attach link", "kprobe_execve attach link"]
    return capability_table.derived(measured, order, {"kprobe_execve attach link": "kprobe attach link"}).cells[name][
        Context("root", sysctl)
    ]


@pytest.mark.parametrize("sysctl", [_BPF, _PERF])
def test_two_sysctls_answer_as_the_one_it_depends_on(sysctl: str) -> None:
    cells = {"kprobe load": {"": "EPERM", sysctl: "ok"}}
    assert _derived(cells, "kprobe load", _TOGETHER) == _derived(cells, "kprobe load", sysctl) == "ok"
    assert _derived(cells, "kprobe load", _PERF if sysctl == _BPF else _BPF) == "EPERM"
    assert _derived(cells, "kprobe load", "perf_event_paranoid=0") == "EPERM"


def test_what_was_measured_under_two_sysctls_is_not_derived() -> None:
    cells = {"kprobe load": {"": "EPERM", _BPF: "EACCES", _PERF: "EINVAL", _TOGETHER: "ok"}}
    assert _derived(cells, "kprobe load", _TOGETHER) == "ok"


def test_loading_and_attaching_is_the_first_refusal() -> None:
    """A kprobe with BPF+PERFMON: perf_event_open() lets CAP_PERFMON in at paranoid -1, and at 3 it does not."""
    cells = {
        "kprobe load": {"": "EPERM | BPF+PERFMON ok | SYS_ADMIN ok"},
        "kprobe attach link": {"": "EACCES | SYS_ADMIN ok", _PERF: "EACCES | PERFMON ok | SYS_ADMIN ok"},
    }
    assert _derived(cells, "kprobe load+attach link", "") == "EPERM | BPF+PERFMON EACCES | SYS_ADMIN ok"
    for sysctl in (_PERF, _TOGETHER):
        assert _derived(cells, "kprobe load+attach link", sysctl) == "EPERM | BPF+PERFMON ok | SYS_ADMIN ok"


def test_loading_and_attaching_that_was_measured_is_as_measured() -> None:
    """With a token, which a program carries from its load to its attachment."""
    cells = {
        "kprobe load": {"": "ok"},
        "kprobe attach link": {"": "EPERM"},
        "kprobe load+attach link": {"": "EINVAL", _BPF: "ok"},
    }
    answers = [_derived(cells, "kprobe load+attach link", sysctl) for sysctl in ("", _BPF, _PERF, _TOGETHER)]
    assert answers == ["EINVAL", "ok", "EINVAL", "ok"]


def test_a_shipped_program_is_as_its_type_under_a_sysctl() -> None:
    cells = {"kprobe attach link": {"": "EACCES", _PERF: "ok"}, "kprobe_execve attach link": {"": "EPERM"}}
    answers = [_derived(cells, "kprobe_execve attach link", sysctl) for sysctl in ("", _BPF, _PERF, _TOGETHER)]
    assert answers == ["EPERM", "EACCES", "ok", "ok"]


@given(st.lists(st.sampled_from([OK, "EPERM", "EACCES"]), min_size=32, max_size=32))
def test_two_stages_are_ok_where_both_are(answers: list[str]) -> None:
    load, attach = (dict(zip(subsets(), part, strict=True)) for part in (answers[:16], answers[16:]))
    cells = {
        "kprobe load": {"": capabilities.rules(load)},
        "kprobe attach link": {"": capabilities.rules(attach)},
    }
    both_stages = capabilities.answers(_derived(cells, "kprobe load+attach link", _TOGETHER))
    assert both_stages == {caps: attach[caps] if load[caps] == OK else load[caps] for caps in subsets()}


def test_minimal_sets_of_two_stages_are_joined() -> None:
    minimum = {
        "kprobe_execve load": {Context("nobody"): "BPF+PERFMON | SYS_ADMIN"},
        "kprobe_execve attach tracefs": {Context("nobody"): "PERFMON+DAC_OVERRIDE | SYS_ADMIN+DAC_OVERRIDE"},
    }
    order = [*minimum, "kprobe_execve load+attach tracefs"]
    row = capability_table.derived(Table(_DEFAULTS, _SETTINGS, minimum, {}), order, {}).minimum[order[-1]]
    assert set(row.values()) == {"BPF+PERFMON+DAC_OVERRIDE | SYS_ADMIN+DAC_OVERRIDE"}


def _table(minimum: str, cells: str, sysctl: str = "") -> Table:
    usual = {Context("root"): "BPF+NET_ADMIN", Context("nobody"): "BPF+NET_ADMIN"}
    rules = {Context("root"): "EPERM | BPF ok"}
    return Table(
        _DEFAULTS,
        _SETTINGS,
        {"xdp_packet_counter load": {**usual, Context("root", sysctl): minimum}},
        {"xdp load": {**rules, Context("root", sysctl): cells}},
    )


def test_a_grown_set_is_named_with_kernel_program_stage_and_who() -> None:
    before = _table("BPF+NET_ADMIN", "EPERM | BPF ok")
    after = _table("BPF+NET_ADMIN+PERFMON", "EPERM | BPF ok")
    assert compare_minimum("6.1", before, after) == [
        "6.1 xdp_packet_counter load (root): minimal set grew: {BPF, NET_ADMIN} -> {BPF, NET_ADMIN, PERFMON}"
    ]
    assert compare_cells("6.1", before, after) == []


def test_a_changed_cell_is_named_with_its_set_and_sysctl() -> None:
    before = _table("BPF+NET_ADMIN", "EPERM | BPF ok")
    after = _table("BPF+NET_ADMIN", "EPERM | BPF ok | BPF+NET_ADMIN+PERFMON EACCES", "perf_event_paranoid=0")
    assert compare_cells("6.1", before, after) == [
        "6.1 xdp load (root, perf_event_paranoid=0): with BPF+NET_ADMIN+PERFMON: ok -> EACCES",
        "6.1 xdp load (root, perf_event_paranoid=0): with BPF+NET_ADMIN+PERFMON+SYS_ADMIN: ok -> EACCES",
    ]


def test_what_is_new_or_gone_is_named() -> None:
    table = _table("BPF", "ok")
    without = replace(table, cells={})
    assert compare_cells("6.1", without, table) == ["6.1 xdp load (root): not in the baseline"]
    assert compare_cells("6.1", table, without) == ["6.1 xdp load (root): not tried any more"]


def test_another_default_is_a_difference() -> None:
    table = _table("BPF", "ok")
    other = replace(table, defaults={**_DEFAULTS, "perf_event_paranoid": 2})
    assert "perf_event_paranoid': 3" in compare_cells("6.1", table, other)[0]


def test_equal_lines_share_one_and_only_exceptions_are_written() -> None:
    rules = {
        **{Context(who, sysctl): "EPERM" for who in ("root", "nobody") for sysctl in ("", *_SETTINGS)},
        Context("root", "perf_event_paranoid=-1"): "ok",
        Context("root", "perf_event_paranoid=0"): "ok",
    }
    assert capability_table.grouped(rules) == {"root nobody": "EPERM", "root, perf_event_paranoid=-1 0": "ok"}


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"defaults": {}, "settings": "", "minimum": {}},
        {"defaults": {}, "settings": "", "minimum": {}, "cells": {"xdp load": {"root": "EPERM | CAP_BPF ok"}}},
        {"defaults": {}, "settings": "", "minimum": {"xdp load": {"root": "BPFF"}}, "cells": {}},
        {"defaults": {}, "settings": "", "minimum": {}, "cells": {"xdp load": {"root, x=1": "ok"}}},
        [],
    ],
)
def test_a_file_that_is_not_the_table_is_one_error(table: object) -> None:
    with pytest.raises(ManifestError, match=r"capabilities\.json"):
        capability_table.read(json.dumps({"6.1": table}))


def test_kernels_are_written_in_the_manifests_order() -> None:
    table = _table("BPF", "ok")
    text = capability_table.write({"7.3": table, "5.10": table, "unknown": table}, ["5.10", "6.1", "7.3"])
    assert list(capability_table.read(text)) == ["5.10", "7.3"]


def test_every_line_of_a_table_is_one_line_of_the_file() -> None:
    text = capability_table.write({"6.1": _table("BPF", "EPERM | BPF ok")}, ["6.1"])
    assert any(line.strip() == '"root": "EPERM | BPF ok"' for line in text.splitlines())


_FULL = "EPERM | BPF+NET_ADMIN+PERFMON+SYS_ADMIN ok"


@pytest.mark.parametrize(("count", "more"), [(1, ""), (4, ""), (5, " and 1 more"), (6, " and 2 more")])
def test_a_change_names_at_most_four_contexts(count: int, more: str) -> None:
    usual = {Context(who): "EACCES" for who in ("root", "nobody")}
    contexts = [Context(who, sysctl) for sysctl in _SETTINGS[:3] for who in ("root", "nobody")][:count]
    before, after = (
        Table(_DEFAULTS, _SETTINGS, {}, {"xdp load": usual | dict.fromkeys(contexts, text)})
        for text in ("EPERM", _FULL)
    )
    named = "; ".join(map(str, contexts[:4]))
    change = "with BPF+NET_ADMIN+PERFMON+SYS_ADMIN"
    assert compare_cells("6.1", before, after) == [f"6.1 xdp load ({named}{more}): {change}: EPERM -> ok"]
    assert compare_cells("6.1", after, before) == [f"6.1 xdp load ({named}{more}): {change}: ok -> EPERM"]


def test_another_setting_is_a_difference() -> None:
    table = _table("BPF", "ok")
    other = replace(table, settings=_SETTINGS[1:])
    for one, two in ((table, other), (other, table)):
        (line,) = compare_cells("6.1", one, two)
        assert line.startswith("6.1 sysctls: ")


def test_the_recorded_tables_are_written_as_they_are() -> None:
    """Otherwise a measurement without a change would be a diff."""
    text = HERE.capabilities.read_text()
    assert capability_table.write(capability_table.read(text), json.loads(text)) == text
