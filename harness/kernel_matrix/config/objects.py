"""The tables of objects that others compiled: ``object."NAME"`` and ``expect`` -> frozen data."""

from __future__ import annotations

import errno
from typing import Annotated, Literal

import msgspec

from kernel_matrix.shared.bpf.object_table import Expected, ObjectSettings, ObjectTable
from kernel_matrix.shared.errors import ERRNO_NAMES, ManifestError

_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
#: the stages that loading and attaching a foreign object can be refused at
_Stage = Literal["open", "map_create", "pin", "load", "attach", "read"]
#: as a refusal's cell has them: an errno with two names has one of them there
_ERRNOS = frozenset({**errno.errorcode, **ERRNO_NAMES}.values())


class Object(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """[tool.kernel-matrix.object."NAME"]: what the object's own loader sets."""

    modules: tuple[_Name, ...] = ()
    variables: dict[str, bool | int | tuple[int, ...]] = {}
    max_entries: dict[str, _Count | Literal["cpus"]] = {}
    inner_maps: dict[str, _Name] = {}
    sections: dict[str, _Name] = {}
    targets: dict[str, _Name] = {}
    replaces: dict[str, _Name] = {}
    value_sizes: dict[str, _Count] = {}
    device_bound: tuple[_Name, ...] = ()


class _Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    stage: _Stage
    errno: _Name


class Expect(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """[[tool.kernel-matrix.expect]]: what cells of objects are to be."""

    cells: _Name
    kernels: tuple[_Name, ...] = ()
    without: str = ""
    refused: _Refused | None = None
    optional: bool = False
    one_of: tuple[_Name, ...] = ()
    known_issue: str = ""


def table(
    objects: dict[str, Object], expected: tuple[Expect, ...], capabilities: tuple[str, ...] | None, where: str
) -> ObjectTable:
    """Return what the tables say; raises ManifestError for an entry that says nothing, or two things."""
    return ObjectTable(
        {name: _settings(entry) for name, entry in objects.items()},
        tuple(_expected(entry, where) for entry in expected),
        capabilities,
    )


def _settings(entry: Object) -> ObjectSettings:
    return ObjectSettings(
        entry.modules,
        entry.variables,
        entry.max_entries,
        entry.inner_maps,
        entry.sections,
        entry.targets,
        entry.replaces,
        entry.value_sizes,
        entry.device_bound,
    )


def _expected(entry: Expect, where: str) -> Expected:
    declared = [entry.refused is not None, entry.optional, bool(entry.one_of), bool(entry.known_issue)]
    if sum(declared) != 1:
        raise ManifestError(f"{where}: expect {entry.cells}: one of refused, optional, one-of and known-issue")
    refused = entry.refused
    if refused is not None and refused.errno not in _ERRNOS:
        raise ManifestError(f"{where}: expect {entry.cells}: no errno {refused.errno}")
    return Expected(
        entry.cells,
        entry.kernels,
        entry.without,
        refused.stage if refused else "",
        refused.errno if refused else "",
        entry.optional,
        entry.one_of,
        entry.known_issue,
    )
