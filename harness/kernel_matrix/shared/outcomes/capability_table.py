"""The capability table of a kernel, and the reviewed file with the tables of all kernels: read, write, compare. Pure.

A table maps each probe (``kprobe load``, ``xdp attach netlink``) to its result in each context: a user (root, nobody,
the root of a user namespace) and sysctl settings. In the file, users and sysctls are the key of a line. One rule reads
it, ``Table.read`` (docs/capabilities.md): take the line of the context, or else the line of the same user under the
default sysctls:

    "socket_filter load": {
      "root nobody": "EPERM | BPF ok | SYS_ADMIN ok",
      "root nobody, unprivileged_bpf_disabled=0": "ok"
    }
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes import capabilities
from kernel_matrix.shared.outcomes.capabilities import Caps

#: the name under which a guest sends its table to the host
FACTS = "capabilities"
#: the users, in the order of the file: root of the initial user namespace, a user there who owns nothing, root of that
#: user's own user and network namespace, and the same with a BPF token
USERS = ("root", "nobody", "userns", "token")
#: the two stages that follow each other, in the names of probes: ``xdp load``, ``xdp attach link``
LOAD, ATTACH = "load", "attach"
#: the stage in which a process attaches what it has loaded itself: ``xdp load+attach link``
BOTH = f"{LOAD}+{ATTACH}"
#: between two sysctls of one setting
_AND = "&"
#: contexts of a change that one line names
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Context:
    """A user, and one sysctl setting or two of them: ``one=0&other=-1``."""

    who: str
    #: ``name=value``; empty for the distribution's defaults
    sysctl: str = ""

    def __str__(self) -> str:
        return f"{self.who}, {self.sysctl}" if self.sysctl else self.who


#: probe -> context -> the results as one line
Lines = Mapping[str, Mapping[Context, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """The capability table of one kernel."""

    #: sysctl -> its value in a context that does not name it
    defaults: Mapping[str, int]
    #: every other sysctl setting that was measured, in order
    settings: tuple[str, ...]
    #: for each shipped program and stage, the minimal sets that work (capabilities.show_sets)
    minimum: Lines
    #: for every probe, the result with each of the sixteen sets (capabilities.rules)
    cells: Lines

    def to_json(self) -> dict[str, object]:
        """Return the table as the file has it."""
        return {
            "defaults": dict(self.defaults),
            "settings": " ".join(self.settings),
            "minimum": {name: grouped(lines) for name, lines in self.minimum.items()},
            "cells": {name: grouped(lines) for name, lines in self.cells.items()},
        }

    def contexts(self, probe: str) -> Iterator[Context]:
        """Yield every context of a probe: each of its users, under the default sysctls and under each setting."""
        for who in sorted({context.who for context in self.cells[probe]}, key=USERS.index):
            yield from (Context(who, sysctl) for sysctl in ("", *self.settings))

    def read(self, probe: str, context: Context, caps: Caps) -> str:
        """Return a probe's result with a set of the four capabilities; raises KeyError when it was not measured."""
        return self.answers(probe, context)[caps]

    def answers(self, probe: str, context: Context) -> capabilities.Answers:
        """Return a probe's results with all sixteen sets; raises KeyError when it was not measured."""
        return _answers(self._line(self.cells, probe, context))

    def minimal_sets(self, probe: str, context: Context) -> tuple[Caps, ...]:
        """Return the minimal sets with which a probe of a shipped program works; raises KeyError as `read` does."""
        return capabilities.parse_sets(self._line(self.minimum, probe, context))

    def _line(self, lines: Lines, probe: str, context: Context) -> str:
        if context.sysctl and context.sysctl not in self.settings:
            raise KeyError(f"the table has no setting {context.sysctl}")
        return line(lines[probe], context)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Table:
        """Read a table as the file has it; raises KeyError, ValueError."""
        minimum, cells = ({name: _spread(lines) for name, lines in data[part].items()} for part in ("minimum", "cells"))
        # check each distinct line once: there are few
        for text in {text for contexts in minimum.values() for text in contexts.values()}:
            capabilities.parse_sets(text)
        for text in {text for contexts in cells.values() for text in contexts.values()}:
            _answers(text)
        return cls(dict(data["defaults"]), tuple(data["settings"].split()), minimum, cells)


def line(contexts: Mapping[Context, str], context: Context) -> str:
    """Return the line for a context: its own, or else that of the same user under the default sysctls."""
    return contexts[context] if context in contexts else contexts[Context(context.who)]


#: cached, because few of the thousands of lines are different
_answers = functools.cache(capabilities.answers)


@functools.cache
def _then(first: str, second: str) -> str:
    return capabilities.rules(capabilities.then(_answers(first), _answers(second)))


@functools.cache
def _both(one: str, other: str) -> str:
    return capabilities.show_sets(capabilities.both(capabilities.parse_sets(one), capabilities.parse_sets(other)))


def derived(measured: Table, order: Iterable[str], like: Mapping[str, str]) -> Table:
    """Add the lines that follow from the measured ones, so that there is one for every context; sort by ``order``.

    A probe that was not measured under two sysctls depends on one of them at most, and has the result of that one
    alone. A probe that was not measured under one sysctl does not depend on it, or is ``like`` another probe (probe ->
    probe), whose cells under every sysctl are copied. The result of loading and attaching in one process, unless
    measured, is that of loading, and where loading works that of attaching.
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
            Context(who, sysctl): _nearest(lines, Context(who, sysctl))
            for who in dict.fromkeys(context.who for context in lines)
            for sysctl in ("", *settings)
        }
    for name, source in like.items():
        whole[name] |= {
            context: line for context, line in whole[source].items() if context.sysctl and context in whole[name]
        }
    for name in order:
        subject, _, path = name.partition(f" {BOTH} ")
        if path:
            load, attach = whole.get(f"{subject} {LOAD}", {}), whole.get(f"{subject} {ATTACH} {path}", {})
            joined = {context: join(load[context], line) for context, line in attach.items() if context in load}
            whole[name] = joined | whole[name]
    return {name: lines for name, lines in whole.items() if lines}


def _nearest(measured: Mapping[Context, str], context: Context) -> str:
    """Return the measured line of a context, or that of one of its sysctls, or that of the default sysctls."""
    candidates = (context, *(Context(context.who, candidate) for candidate in context.sysctl.split(_AND)))
    return (
        next((measured[candidate] for candidate in candidates if candidate in measured), None)
        or measured[Context(context.who)]
    )


def grouped(lines: Mapping[Context, str]) -> dict[str, str]:
    """Group contexts with equal lines: those under the default sysctls first, then the exceptions."""
    groups: dict[tuple[str, tuple[int, ...], str], list[str]] = {}
    for who in sorted({context.who for context in lines}, key=USERS.index):
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
        " ".join(users) + (f", {name}={' '.join(map(str, values))}" if name else ""): line
        for (name, values, line), users in sorted(groups.items(), key=lambda group: (group[0][:2], _ranks(group[1])))
    }


def _ranks(users: Iterable[str]) -> list[int]:
    return [USERS.index(who) for who in users]


def _spread(lines: Mapping[str, str]) -> dict[Context, str]:
    by_context: dict[Context, str] = {}
    for key, line in lines.items():
        users, _, sysctl = key.partition(", ")
        name, _, values = sysctl.rpartition("=")
        for who in users.split(" "):
            if who not in USERS:
                raise ValueError(f"nobody is called {who!r}")
            for value in values.split(" "):
                by_context[Context(who, f"{name}={value}" if name else "")] = line
    if without := {context.who for context in by_context} - {
        context.who for context in by_context if not context.sysctl
    }:
        raise ValueError(f"no line without a sysctl for {', '.join(sorted(without))}")
    return by_context


def read(text: str, *, source: str = "capabilities.json", only: Collection[str] | None = None) -> dict[str, Table]:
    """Read the file: a table for each kernel; raises ManifestError.

    ``only``: the kernels to read, None for all. An emulated guest takes 0.4 s for those that it is not.
    """
    try:
        tables = json.loads(text)
        return {name: Table.from_json(table) for name, table in tables.items() if only is None or name in only}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ManifestError(f"{source}: {type(error).__name__}: {error}") from error


def write(tables: Mapping[str, Table], order: Iterable[str]) -> str:
    """Return the file's text: the kernels in the manifest's order, one line for each entry of a table."""
    listed = [kernel for kernel in order if kernel in tables]
    whole = {kernel: tables[kernel].to_json() for kernel in listed}
    return json.dumps(whole, indent=1) + "\n"


def compare_minimum(kernel: str, expected: Table, measured: Table) -> list[str]:
    """Describe each minimal set of a shipped program that grew or shrank, a line each."""
    return list(_differences(kernel, expected.minimum, measured.minimum, _minimum_changes))


def compare_cells(kernel: str, expected: Table, measured: Table) -> list[str]:
    """Describe each cell that changed, one line for all contexts with the same change."""
    differences = []
    if (expected.defaults, expected.settings) != (measured.defaults, measured.settings):
        differences.append(
            f"{kernel} sysctls: {dict(expected.defaults)} and {', '.join(expected.settings)}"
            f" -> {dict(measured.defaults)} and {', '.join(measured.settings)}"
        )
    return [*differences, *_differences(kernel, expected.cells, measured.cells, _cell_changes)]


def _differences(
    kernel: str, expected: Lines, measured: Lines, describe: Callable[[str, str], Iterable[str]]
) -> Iterator[str]:
    for name in dict.fromkeys([*expected, *measured]):
        contexts: dict[str, list[str]] = {}
        old, new = expected.get(name, {}), measured.get(name, {})
        if _agree(old, new) and _agree(new, old):
            continue
        for context in dict.fromkeys([*old, *new]):
            usual = Context(context.who)
            before, after = (line(lines, context) if usual in lines else None for lines in (old, new))
            # described once, not for each sysctl
            if context.sysctl and (before, after) == (old.get(usual), new.get(usual)):
                continue
            if before is None or after is None:
                described: Iterable[str] = ["not tried any more" if after is None else "not in the baseline"]
            else:
                described = describe(before, after) if before != after else ()
            for change in described:
                contexts.setdefault(change, []).append(str(context))
        for change, where in contexts.items():
            more = f" and {len(where) - _NAMED} more" if len(where) > _NAMED else ""
            yield f"{kernel} {name} ({'; '.join(where[:_NAMED])}{more}): {change}"


def _agree(lines: Mapping[Context, str], reference: Mapping[Context, str]) -> bool:
    """Whether each of the lines equals the reference's line for its context."""
    return all(text == reference.get(context, reference.get(Context(context.who))) for context, text in lines.items())


def _minimum_changes(before: str, after: str) -> Iterator[str]:
    return capabilities.describe_change(capabilities.parse_sets(before), capabilities.parse_sets(after))


def _cell_changes(before: str, after: str) -> Iterator[str]:
    old, new = _answers(before), _answers(after)
    for caps in capabilities.subsets():
        if old[caps] != new[caps]:
            yield f"with {capabilities.show(caps)}: {old[caps]} -> {new[caps]}"
