"""The capability table of a kernel, and the reviewed file with those of all: reading, writing, comparing. Pure.

A table maps what was tried (``kprobe load``, ``xdp attach netlink``) to what came of it in each context: who tried
(root, nobody, the root of a user namespace) and, where it differs from the default, a sysctl. In the file, who and
sysctl are the key of a line, a context without a line of its own is as without its sysctl:

    "socket_filter load": {
      "root nobody": "EPERM | BPF ok | SYS_ADMIN ok",
      "root nobody, unprivileged_bpf_disabled=0": "ok"
    }
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness import capabilities
from harness.errors import ManifestError

#: the file with every kernel's table, below the project's folder
BASELINE = "baselines/capabilities.json"
#: the name under which a guest hands its table to the host
FACTS = "capabilities"
#: changed cells that are named in one line
_NAMED = 4


@dataclass(frozen=True, slots=True, order=True)
class Context:
    """Who tries, and under which sysctl."""

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
            "settings": list(self.settings),
            "minimum": {name: grouped(lines) for name, lines in self.minimum.items()},
            "cells": {name: grouped(lines) for name, lines in self.cells.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Table:
        """Read the form of the file; raises KeyError, ValueError."""
        settings = tuple(data["settings"])
        defaults = {name: int(value) for name, value in data["defaults"].items()}  # type: ignore[call-overload]
        minimum, cells = (
            {name: _spread(lines, settings) for name, lines in data[part].items()} for part in ("minimum", "cells")
        )
        for lines, read in ((minimum, capabilities.parse_sets), (cells, capabilities.answers)):
            for text in {text for contexts in lines.values() for text in contexts.values()}:
                read(text)  # type: ignore[operator]
        return cls(defaults, settings, minimum, cells)


def grouped(lines: Mapping[Context, str]) -> dict[str, str]:
    """Join contexts with equal lines: without a sysctl first, then each exception to that."""
    groups: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
    for who in dict.fromkeys(context.who for context in lines):
        usual = lines[Context(who)]
        exceptions: dict[tuple[str, str], list[str]] = {}
        for context, line in lines.items():
            if context.who == who and context.sysctl and line != usual:
                name, _, value = context.sysctl.partition("=")
                exceptions.setdefault((name, line), []).append(value)
        groups.setdefault(("", (), usual), []).append(who)
        for (name, line), values in exceptions.items():
            groups.setdefault((name, tuple(values), line), []).append(who)
    written = {}
    for (name, values, line), people in sorted(groups.items(), key=lambda group: bool(group[0][0])):
        written[" ".join(people) + (f", {name}={' '.join(values)}" if name else "")] = line
    return written


def _spread(lines: Mapping[str, str], settings: Sequence[str]) -> dict[Context, str]:
    found: dict[Context, str] = {}
    for key, line in lines.items():
        people, _, sysctl = key.partition(", ")
        name, _, values = sysctl.partition("=")
        for who in people.split(" "):
            for value in values.split(" "):
                found[Context(who, f"{name}={value}" if name else "")] = line
    for who in [context.who for context in found if not context.sysctl]:
        for setting in settings:
            found.setdefault(Context(who, setting), found[Context(who)])
    return found


def read(text: str, *, source: str = BASELINE) -> dict[str, Table]:
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
    for name in [*expected, *(name for name in found if name not in expected)]:
        if name not in found or name not in expected:
            yield f"{kernel} {name}: {'not tried any more' if name in expected else 'not in the baseline'}"
            continue
        contexts: dict[str, list[Context]] = {}
        for context in dict.fromkeys([*expected[name], *found[name]]):
            before, after = expected[name].get(context), found[name].get(context)
            if before is None or after is None:
                lines = ["not tried any more" if after is None else "not in the baseline"]
            else:
                lines = list(changes(before, after)) if before != after else []
            for line in lines:
                contexts.setdefault(line, []).append(context)
        for line, where in contexts.items():
            more = f" and {len(where) - _NAMED} more" if len(where) > _NAMED else ""
            yield f"{kernel} {name} ({'; '.join(str(context) for context in where[:_NAMED])}{more}): {line}"


def _minimum_changes(before: str, after: str) -> Iterator[str]:
    return capabilities.describe_change(capabilities.parse_sets(before), capabilities.parse_sets(after))


def _cell_changes(before: str, after: str) -> Iterator[str]:
    old, new = capabilities.answers(before), capabilities.answers(after)
    for caps in capabilities.subsets():
        if old[caps] != new[caps]:
            yield f"with {capabilities.show(caps)}: {old[caps]} -> {new[caps]}"
