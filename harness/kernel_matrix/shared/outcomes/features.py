"""Features: behaviours that differ between kernels, as data.

Pure data and a pure reader for host and guest, with the standard library and `kernel_matrix.shared` only.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from kernel_matrix.shared.bpf.object_table import ObjectTable
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Command, Program

#: separates the kernel's name from the variant of its command line in a guest's name: ``6.1+lockdown_integrity``
VARIANT = "+"


def plain_kernel(guest: str) -> str:
    """Return the kernel that a guest boots, by its name in kernels.toml."""
    return guest.partition(VARIANT)[0]


@dataclass(frozen=True, slots=True)
class Feature:
    """A behaviour that some kernels have and others do not."""

    #: its name in marks and in kernels.toml, such as ``xdp_frags``
    name: str
    #: one line: what a kernel with the feature does
    meaning: str
    #: the mainline release it came with; information only, nothing compares it
    since: str
    #: the mainline commit, ``sha12 ("subject")``
    commit: str


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """The manifest's facts about a guest's kernel, and all names that the manifest knows."""

    #: this guest's kernel by its name in kernels.toml, with the variant of its command line if it has one
    kernel: str
    #: the features kernels.toml lists for it
    features: frozenset[str]
    #: every feature in features.toml
    all_features: frozenset[str]
    #: every kernel in kernels.toml, with each variant and without, and its features
    kernels: Mapping[str, frozenset[str]]
    #: the programs that the project ships
    programs: tuple[Program, ...] = ()
    #: the loaders that tests run with -> why the guest lacks one, empty where it has it
    loaders: Mapping[str, str] = field(default_factory=dict)
    #: every loader of the table
    all_loaders: tuple[str, ...] = ()
    #: the folder of the programs' sources, relative to the project
    sources: str = "bpf"
    #: what the table says of objects
    objects: ObjectTable = field(default_factory=ObjectTable)
    #: the commands of the table
    commands: tuple[Command, ...] = ()

    @property
    def variant(self) -> str:
        """The variant of the kernel's command line; empty for the kernel's default."""
        return self.kernel.partition(VARIANT)[2]

    @property
    def variants(self) -> frozenset[str]:
        """Every variant in variants.toml."""
        return frozenset(kernel.partition(VARIANT)[2] for kernel in self.kernels) - {""}


def parse_features(text: str, *, source: str) -> tuple[Feature, ...]:
    """Read the text of features.toml, in the file's order; `source` is the file's name for the error's line.

    Raises ManifestError for TOML that does not parse and for a missing, unknown or empty key.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{source}: {error}") from error
    return tuple(_feature(name, table, source) for name, table in tables.items())


def _feature(name: str, table: object, source: str) -> Feature:
    keys = [key.name for key in fields(Feature) if key.name != "name"]
    if not isinstance(table, dict):
        raise ManifestError(f"{source}: {name}: not a feature; a feature is a table [{name}]")
    for key in table:
        if key not in keys:
            raise ManifestError(f"{source}: feature {name}: unknown key {key!r} (known: {', '.join(keys)})")
    values: dict[str, str] = {}
    for key in keys:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ManifestError(f"{source}: feature {name}: {key} must be a line of text")
        values[key] = value
    return Feature(name, **values)
