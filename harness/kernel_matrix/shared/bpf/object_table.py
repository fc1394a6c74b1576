"""What the table says of objects: what only their own loader knows, and what is expected of them. Pure data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from kernel_matrix.shared.bpf.scenario import Scenario

#: the signs that make a name a pattern
_PATTERN = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class ObjectSettings:
    """What an object's own loader sets before it loads the object."""

    #: modules of the kernel that it needs
    modules: tuple[str, ...] = ()
    #: global variable -> its value: a number, or a number for each element
    variables: Mapping[str, Any] = field(default_factory=dict)
    #: map -> its entries, a number or ``cpus``: as many as the machine has processors
    max_entries: Mapping[str, int | str] = field(default_factory=dict)
    #: map of maps -> the map of the object whose like it holds
    inner_maps: Mapping[str, str] = field(default_factory=dict)
    #: program -> the section by which libbpf knows its type, such as ``tc``
    sections: Mapping[str, str] = field(default_factory=dict)
    #: program -> where it is attached: a kernel function, CATEGORY:NAME, or FILE:SYMBOL
    targets: Mapping[str, str] = field(default_factory=dict)
    #: freplace program -> the program that it replaces a function of, ``OBJECT:PROGRAM`` or ``PROGRAM`` of the same one
    replaces: Mapping[str, str] = field(default_factory=dict)
    #: map -> the bytes of its values
    value_sizes: Mapping[str, int] = field(default_factory=dict)
    #: XDP programs that are loaded for the interface that they are attached to
    device_bound: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """What some cells of objects are to be, other than passed."""

    #: pattern of node ids without the kernel, such as ``*/x.bpf.o::NAME::*``
    cells: str
    #: the kernels where this holds, by their names; empty: everywhere
    kernels: tuple[str, ...] = ()
    #: holds only where the kernel lacks this feature; empty: everywhere
    without: str = ""
    #: the stage and the name of the errno of the refusal that must come; empty: none must
    stage: str = ""
    errno: str = ""
    #: whether a refusal is as good as none
    optional: bool = False
    #: programs of the object of which one must attach; the others may be refused
    one_of: tuple[str, ...] = ()
    #: a reference: the cell fails, and what makes it pass is news
    known_issue: str = ""

    @property
    def file_name(self) -> str:
        """The name of the file that it is about; one with a wildcard is no file's."""
        return self.cells.partition("::")[0].rpartition("/")[2]

    def concerns(self, path: str) -> bool:
        """Whether it is about cells of the object with this path."""
        return fnmatchcase(path, self.cells.partition("::")[0])

    def holds(self, test: str, kernel: str, features: Collection[str]) -> bool:
        """Whether it is about this cell; ``kernel`` is the name without a variant."""
        return (
            fnmatchcase(test, self.cells)
            # of what else the pattern matches, nothing is said
            and (not self.one_of or test.split("::")[1] in self.one_of)
            and (not self.kernels or kernel in self.kernels)
            and (not self.without or self.without not in features)
        )


@dataclass(frozen=True, slots=True)
class ObjectTable:
    """What the table says of objects."""

    #: pattern of the object's path, or of its name -> its settings
    settings: Mapping[str, ObjectSettings] = field(default_factory=dict)
    expected: tuple[Expected, ...] = ()
    #: the capabilities that suffice everywhere: needing another is red; None: nothing is promised
    capabilities: tuple[str, ...] | None = None
    scenarios: tuple[Scenario, ...] = ()

    def of(self, path: str) -> ObjectSettings:
        """Return an object's settings: those under its path before those under its name, and these before patterns."""
        keys = [key for key in self.settings if self.names(key, path)]
        return (
            self.settings[max(keys, key=lambda key: (not _PATTERN & set(key), len(key)))] if keys else ObjectSettings()
        )

    def about(self, paths: Collection[str]) -> ObjectTable:
        """Return what it says of these objects."""
        settings = {key: own for key, own in self.settings.items() if any(self.names(key, path) for path in paths)}
        expected = [entry for entry in self.expected if any(entry.concerns(path) for path in paths)]
        scenarios = [own for own in self.scenarios if any(self.names(own.object, path) for path in paths)]
        return ObjectTable(settings, tuple(expected), self.capabilities, tuple(scenarios))

    def scenarios_of(self, path: str) -> tuple[Scenario, ...]:
        """Return an object's scenarios, in the table's order."""
        return tuple(own for own in self.scenarios if self.names(own.object, path))

    @staticmethod
    def names(key: str, path: str) -> bool:
        """Whether a key of the settings is about the object with this path."""
        return fnmatchcase(path, key) or PurePosixPath(path).match(key)

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> ObjectTable:
        """Read the result of `dataclasses.asdict` after JSON."""
        capabilities = fields["capabilities"]
        return cls(
            {name: ObjectSettings(**_tuples(settings)) for name, settings in fields["settings"].items()},
            tuple(Expected(**_tuples(entry)) for entry in fields["expected"]),
            None if capabilities is None else tuple(capabilities),
            tuple(map(Scenario.of_json, fields["scenarios"])),
        )


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
