"""The capability table of a kernel, and the reviewed file with those of all: reading, writing, comparing. Pure.

A table maps what was tried (``kprobe load``, ``xdp attach netlink``) to what came of it in each context: who tried
(root, nobody, the root of a user namespace) under which sysctls. In the file, who and sysctls are the key of a line. It
is read by one rule, ``Table.read`` (docs/capabilities.md): the line of the context, where there is none that of the
same person under the defaults:

    "socket_filter load": {
      "root nobody": "EPERM | BPF ok | SYS_ADMIN ok",
      "root nobody, unprivileged_bpf_disabled=0": "ok"
    }
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kernel_matrix.shared import capabilities
from kernel_matrix.shared.capabilities import Caps
from kernel_matrix.shared.errors import ManifestError

#: the name under which a guest hands its table to the host
FACTS = "capabilities"
#: who tries, in the order of the file: the host's root, a user of it who owns nothing, root of that user's own user
#: and network namespace, and the same with a BPF token
PEOPLE = ("root", "nobody", "userns", "token")
#: the stages of which a probe's name tells that one follows another: ``xdp load``, ``xdp attach link``
LOAD, ATTACH = "load", "attach"
#: the stage in which a process attaches what it has loaded itself: ``xdp load+attach link``
BOTH = f"{LOAD}+{ATTACH}"
#: between two sysctls of one setting
_AND = "&"
#: changed cells that are named in one line
_NAMED = 4


@dataclass(frozen=True, slots=True, order=True)
class Context:
    """Who tries, and under which sysctl, or two of them: ``one=0&other=-1``."""

    who: str
    #: ``name=value``; empty for the distribution's defaults
    sysctl: str = ""

    def __str__(self) -> str:
        return f"{self.who}, {self.sysctl}" if self.sysctl else self.who


#: what was tried -> context -> what came of it, as one line
Lines = Mapping[str, Mapping[Context, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """What a kernel answers."""

    #: sysctl -> its value where a context names none
    defaults: Mapping[str, int]
    #: every sysctl setting that was tried besides, in order
    settings: tuple[str, ...]
    #: of each shipped program and stage: the minimal sets that work (capabilities.show_sets)
    minimum: Lines
    #: of everything: what came of each of the sixteen sets (capabilities.rules)
    cells: Lines

    def to_json(self) -> dict[str, object]:
        """Return the form of the file."""
        return {
            "defaults": dict(self.defaults),
            "settings": " ".join(self.settings),
            "minimum": {name: grouped(lines) for name, lines in self.minimum.items()},
            "cells": {name: grouped(lines) for name, lines in self.cells.items()},
        }

    def contexts(self, probe: str) -> Iterator[Context]:
        """Yield every context in which the table answers: whoever tried, under the defaults and each setting."""
        for who in sorted({context.who for context in self.cells[probe]}, key=PEOPLE.index):
            yield from (Context(who, sysctl) for sysctl in ("", *self.settings))

    def read(self, probe: str, context: Context, caps: Caps) -> str:
        """Return what came of a probe with a set of the four capabilities; raises KeyError for what was not tried."""
        return _answers(self._line(self.cells, probe, context))[caps]

    def minimal_sets(self, probe: str, context: Context) -> tuple[Caps, ...]:
        """Return the minimal sets with which a probe of a shipped program works; raises KeyError likewise."""
        return capabilities.parse_sets(self._line(self.minimum, probe, context))

    def _line(self, lines: Lines, probe: str, context: Context) -> str:
        if context.sysctl and context.sysctl not in self.settings:
            raise KeyError(f"the table has no setting {context.sysctl}")
        return line(lines[probe], context)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Table:
        """Read the form of the file; raises KeyError, ValueError."""
        minimum, cells = ({name: _spread(lines) for name, lines in data[part].items()} for part in ("minimum", "cells"))
        # each line once: of thousands few are different, and an emulated guest reads all kernels' tables
        for text in {text for contexts in minimum.values() for text in contexts.values()}:
            capabilities.parse_sets(text)
        for text in {text for contexts in cells.values() for text in contexts.values()}:
            _answers(text)
        return cls(dict(data["defaults"]), tuple(data["settings"].split()), minimum, cells)


def line(contexts: Mapping[Context, str], context: Context) -> str:
    """Return the line that answers in a context: its own, or else the same person's under the defaults."""
    return contexts[context] if context in contexts else contexts[Context(context.who)]


#: of thousands of lines few are different
_answers = functools.cache(capabilities.answers)


@functools.cache
def _then(first: str, second: str) -> str:
    return capabilities.rules(capabilities.then(_answers(first), _answers(second)))


@functools.cache
def _both(one: str, other: str) -> str:
    return capabilities.show_sets(capabilities.both(capabilities.parse_sets(one), capabilities.parse_sets(other)))


def derived(measured: Table, order: Iterable[str], like: Mapping[str, str]) -> Table:
    """Add to a table what follows from what was measured, so that it has a line for every context; in this order.

    What was not measured under two sysctls depends on one of them at most and is as under that one alone; what was
    not measured under one does not depend on it, or is ``like`` something else (probe -> probe), of which the cells are
    taken under every sysctl. Loading and attaching by one process, where it was not measured itself, is what loading
    comes to, and attaching where that works.
    """
    names = list(order)
    return replace(
        measured,
        minimum=_derived(measured.minimum, names, measured.settings, {}, _both),
        cells=_derived(measured.cells, names, measured.settings, like, _then),
    )


def _derived(
    measured: Lines,
    order: Sequence[str],
    settings: Sequence[str],
    like: Mapping[str, str],
    join: Callable[[str, str], str],
) -> Lines:
    whole: dict[str, dict[Context, str]] = {}
    for name in order:
        lines = measured.get(name, {})
        whole[name] = {
            Context(who, sysctl): _settled(lines, Context(who, sysctl))
            for who in dict.fromkeys(context.who for context in lines)
            for sysctl in ("", *settings)
        }
    for name, other in like.items():
        whole[name] |= {each: line for each, line in whole[other].items() if each.sysctl and each in whole[name]}
    for name in order:
        subject, _, path = name.partition(f" {BOTH} ")
        if path:
            load, attach = whole.get(f"{subject} {LOAD}", {}), whole.get(f"{subject} {ATTACH} {path}", {})
            joined = {context: join(load[context], line) for context, line in attach.items() if context in load}
            whole[name] = joined | whole[name]
    return {name: lines for name, lines in whole.items() if lines}


def _settled(measured: Mapping[Context, str], context: Context) -> str:
    """Return the line of a context, or that of the only sysctl of it that the probe was tried under, or the default."""
    near = (context, *(Context(context.who, each) for each in context.sysctl.split(_AND)))
    return next((measured[each] for each in near if each in measured), None) or measured[Context(context.who)]


def grouped(lines: Mapping[Context, str]) -> dict[str, str]:
    """Join contexts with equal lines: those without a sysctl first, then each exception to them."""
    groups: dict[tuple[str, tuple[int, ...], str], list[str]] = {}
    for who in sorted({context.who for context in lines}, key=PEOPLE.index):
        usual = lines[Context(who)]
        exceptions: dict[tuple[str, str], list[int]] = {}
        for context, line in lines.items():
            if context.who == who and context.sysctl and line != usual:
                name, _, value = context.sysctl.rpartition("=")
                exceptions.setdefault((name, line), []).append(int(value))
        groups.setdefault(("", (), usual), []).append(who)
        for (name, line), values in exceptions.items():
            groups.setdefault((name, tuple(sorted(values)), line), []).append(who)
    return {
        " ".join(people) + (f", {name}={' '.join(map(str, values))}" if name else ""): line
        for (name, values, line), people in sorted(groups.items(), key=lambda group: (group[0][:2], _ranks(group[1])))
    }


def _ranks(people: Iterable[str]) -> list[int]:
    return [PEOPLE.index(who) for who in people]


def _spread(lines: Mapping[str, str]) -> dict[Context, str]:
    found: dict[Context, str] = {}
    for key, line in lines.items():
        people, _, sysctl = key.partition(", ")
        name, _, values = sysctl.rpartition("=")
        for who in people.split(" "):
            if who not in PEOPLE:
                raise ValueError(f"nobody is called {who!r}")
            for value in values.split(" "):
                found[Context(who, f"{name}={value}" if name else "")] = line
    if without := {context.who for context in found} - {context.who for context in found if not context.sysctl}:
        raise ValueError(f"no line without a sysctl for {', '.join(sorted(without))}")
    return found


def read(text: str, *, source: str = "capabilities.json") -> dict[str, Table]:
    """Read the file: a table for each kernel; raises ManifestError."""
    try:
        return {kernel: Table.from_json(table) for kernel, table in json.loads(text).items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ManifestError(f"{source}: {type(error).__name__}: {error}") from error


def write(tables: Mapping[str, Table], order: Iterable[str]) -> str:
    """Return the file's text: kernels in the manifest's order, a line for each entry of a table."""
    known = [kernel for kernel in order if kernel in tables]
    whole = {kernel: tables[kernel].to_json() for kernel in known}
    return json.dumps(whole, indent=1) + "\n"


def compare_minimum(kernel: str, expected: Table, found: Table) -> list[str]:
    """Say which minimal sets of a shipped program grew or shrank, a line each; empty when none did."""
    return list(_differences(kernel, expected.minimum, found.minimum, _minimum_changes))


def compare_cells(kernel: str, expected: Table, found: Table) -> list[str]:
    """Name each cell that changed, one line for all contexts in which it changed alike; empty when none did."""
    differences = []
    if (expected.defaults, expected.settings) != (found.defaults, found.settings):
        differences.append(
            f"{kernel} sysctls: {dict(expected.defaults)} and {', '.join(expected.settings)}"
            f" -> {dict(found.defaults)} and {', '.join(found.settings)}"
        )
    return [*differences, *_differences(kernel, expected.cells, found.cells, _cell_changes)]


def _differences(
    kernel: str, expected: Lines, found: Lines, changes: Callable[[str, str], Iterable[str]]
) -> Iterator[str]:
    for name in dict.fromkeys([*expected, *found]):
        contexts: dict[str, list[str]] = {}
        old, new = expected.get(name, {}), found.get(name, {})
        if _agree(old, new) and _agree(new, old):
            continue
        for context in dict.fromkeys([*old, *new]):
            usual = Context(context.who)
            before, after = (line(each, context) if usual in each else None for each in (old, new))
            # said once, not for each sysctl
            if context.sysctl and (before, after) == (old.get(usual), new.get(usual)):
                continue
            if before is None or after is None:
                said: Iterable[str] = ["not tried any more" if after is None else "not in the baseline"]
            else:
                said = changes(before, after) if before != after else ()
            for each in said:
                contexts.setdefault(each, []).append(str(context))
        for said_of, where in contexts.items():
            more = f" and {len(where) - _NAMED} more" if len(where) > _NAMED else ""
            yield f"{kernel} {name} ({'; '.join(where[:_NAMED])}{more}): {said_of}"


def _agree(lines: Mapping[Context, str], other: Mapping[Context, str]) -> bool:
    """Whether what lines say is what the others say."""
    return all(text == other.get(context, other.get(Context(context.who))) for context, text in lines.items())


def _minimum_changes(before: str, after: str) -> Iterator[str]:
    return capabilities.describe_change(capabilities.parse_sets(before), capabilities.parse_sets(after))


def _cell_changes(before: str, after: str) -> Iterator[str]:
    old, new = _answers(before), _answers(after)
    for caps in capabilities.subsets():
        if old[caps] != new[caps]:
            yield f"with {capabilities.show(caps)}: {old[caps]} -> {new[caps]}"
