"""Set in an open object what its own loader sets before it loads it; find what nobody declared."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator
from contextlib import contextmanager
from ctypes import c_bool, c_size_t
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_matrix.diagnose import maps as rules
from kernel_matrix.diagnose.data import sections
from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.undeclared import Undeclared
from kernel_matrix.guest.bpf.library import captured_messages, libbpf, types_of_section
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.undo import Undo
from kernel_matrix.shared.bpf.bpf_elf import BpfFile
from kernel_matrix.shared.bpf.object_table import ObjectSettings
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes import proposals

#: maps that have no entries of their own: the kernel demands 0, or libbpf sets the number
_WITHOUT_ENTRIES = frozenset({
    "sk_storage", "inode_storage", "task_storage", "cgrp_storage", "perf_event_array", "struct_ops", "cgroup_storage",
    "percpu_cgroup_storage",
})  # fmt: skip
_STACKS = "stack_trace"
_MAPS_OF_MAPS = frozenset({"array_of_maps", "hash_of_maps"})
_UNSPECIFIED = "unspec"
#: sections of programs that trace a function of the kernel, or of another program
_TRACING = frozenset({"fentry", "fexit"})
#: linux/bpf.h: the program runs for one device, and in its driver
_BPF_F_XDP_DEV_BOUND_ONLY = 1 << 6


@dataclass(frozen=True, slots=True)
class Foreign:
    """An object file, and what the table says of it."""

    path: Path
    #: its name in the table
    name: str
    file: BpfFile
    settings: ObjectSettings
    #: has the interface of programs that are loaded for one
    place: Place

    def section(self, program: str) -> str:
        """Return a program's section, as the table or the file has it, without the sign of one not loaded of itself."""
        return (self.settings.sections.get(program) or self.file.programs.get(program, "")).lstrip("?")

    def traced_program(self, program: str) -> str:
        """Return ``OBJECT:PROGRAM`` that the table has a program trace; empty: it traces none."""
        target = self.settings.targets.get(program, "")
        return target if ":" in target and self.section(program).partition("/")[0] in _TRACING else ""

    def line(self, key: str, of: str, example: str) -> str:
        """Return the line of the table by which a setting is declared."""
        return proposals.setting(self.name, key, of, example)


def maps_of(pointer: int) -> dict[str, int]:
    """Return libbpf's pointers of an object's maps by name."""
    lib = libbpf()
    return {
        lib.bpf_map__name(each_map).decode(): each_map for each_map in steps.iterate("bpf_object__next_map", pointer)
    }


def configure(foreign: Foreign, pointer: int, programs: dict[str, int], undo: Undo) -> None:
    """Set what the table declares; raises ManifestError for a name that the object lacks."""
    maps, settings = maps_of(pointer), foreign.settings
    of_maps = {
        "max-entries": settings.max_entries, "value-sizes": settings.value_sizes, "inner-maps": settings.inner_maps
    }  # fmt: skip
    _check(foreign, of_maps, set(maps), "map")
    named = {"sections": settings.sections, "targets": settings.targets, "replaces": settings.replaces}
    _check(foreign, named, set(programs), "program")
    _check(foreign, {"device-bound": dict.fromkeys(settings.device_bound)}, set(programs), "program")
    _check(foreign, {"variables": settings.variables}, set(foreign.file.variables), "variable")
    lib = libbpf()
    for name, entries in settings.max_entries.items():
        count = os.cpu_count() or 1 if entries == "cpus" else int(entries)
        steps.checked(lib.bpf_map__set_max_entries(maps[name], count), "open", f"max_entries of {name}")
    for name, size in settings.value_sizes.items():
        steps.checked(lib.bpf_map__set_value_size(maps[name], size), "open", f"value size of {name}")
    for name, like in settings.inner_maps.items():
        _check(foreign, {"inner-maps": {like: ""}}, set(maps), "map")
        fd = steps.create_map(steps.spec_of(maps[like]))
        undo.callback(os.close, fd)
        steps.checked(lib.bpf_map__set_inner_map_fd(maps[name], fd), "open", f"inner map of {name}")
    for name, value in settings.variables.items():
        _set_variable(pointer, foreign, name, value)
    for name, section in settings.sections.items():
        _set_section(foreign, programs[name], name, section)


def pin_below(pins: Path | None, pointer: int) -> list[Path]:
    """Let the maps that are pinned by name be pinned below a folder of ours, None: not at all; return where."""
    lib = libbpf()
    paths: list[Path] = []
    for name, map_pointer in maps_of(pointer).items():
        if lib.bpf_map__pin_path(map_pointer):
            path = None if pins is None else pins / name
            steps.checked(lib.bpf_map__set_pin_path(map_pointer, path and os.fsencode(path)), "open", name)
            paths += [path] if path else []
    return paths


def check_declared(foreign: Foreign, pointer: int, programs: dict[str, int]) -> None:
    """Raise Undeclared for what libbpf or the kernel would refuse only because a loader has to set it first."""
    lib = libbpf()
    for name, program in programs.items():
        section = foreign.section(name)
        if steps.kind_of(program) == _UNSPECIFIED:
            if sections.known(section):
                version = libbpf().libbpf_version_string().decode()
                raise StepError(
                    0, "open", f"{name}: this machine's libbpf ({version}) does not know the section {section}"
                )
            near = sections.near(section)
            why = f"libbpf knows no section {section}" + (f" (did you mean {near}?)" if near else "")
            raise Undeclared(why, foreign.line("sections", name, proposals.section(near)))
        kind, _, target = section.partition("/")
        if kind.partition(".")[0] in proposals.NAMING and not target and name not in foreign.settings.targets:
            why = f"the section {section} of {name} does not name the kernel's function that its loader chooses"
            raise Undeclared(why, foreign.line("targets", name, '"FUNCTION"'))
    for name, map_pointer in maps_of(pointer).items():
        kind = lib.libbpf_bpf_map_type_str(lib.bpf_map__type(map_pointer)).decode()
        if (
            kind in _MAPS_OF_MAPS
            and not lib.bpf_map__inner_map(map_pointer)
            and name not in foreign.settings.inner_maps
        ):
            raise Undeclared(
                f"map {name} ({kind}) does not say what its inner maps are like: its loader sets it",
                foreign.line("inner-maps", name, '"MAP"'),
            )
        if kind not in _WITHOUT_ENTRIES and not lib.bpf_map__max_entries(map_pointer):
            raise Undeclared(
                f"map {name} ({kind}) has no max_entries: its loader sets it",
                foreign.line("max-entries", name, proposals.ENTRIES),
            )
        if kind in rules.OF_ANY_VALUE and not lib.bpf_map__value_size(map_pointer):
            raise Undeclared(
                f"map {name} ({kind}) has no size of its values: its loader sets it",
                foreign.line("value-sizes", name, proposals.value_size(stacks=kind == _STACKS)),
            )


@contextmanager
def bound(foreign: Foreign, programs: dict[str, int]) -> Generator[None]:
    """Load these programs in the block, those that the table declares so for the interface of the place.

    The kernel looks for that in the namespace of who loads (bpf_prog_dev_bound_init()).
    """
    lib = libbpf()
    if not (own := programs.keys() & set(foreign.settings.device_bound)):
        yield
        return
    with foreign.place.in_namespace() as near:
        for name in own:
            lib.bpf_program__set_ifindex(programs[name], near.index)
            flags = lib.bpf_program__flags(programs[name]) | _BPF_F_XDP_DEV_BOUND_ONLY
            steps.checked(lib.bpf_program__set_flags(programs[name], flags), "open", name)
        yield


def set_target(foreign: Foreign, name: str, program: int, other: int = 0) -> None:
    """Name the function that a program is attached to where its section does not; ``other``: that of a loaded program.

    A program that traces another one is attached to its first function, which has its name.
    """
    kind, _, function = foreign.section(name).partition("/")
    function = foreign.settings.targets.get(name, function)
    if other and kind != "freplace":
        function = function.rpartition(":")[2]
    if other or (kind.partition(".")[0] in proposals.NAMING and name in foreign.settings.targets):
        with captured_messages() as messages:
            result = libbpf().bpf_program__set_attach_target(program, other, function.encode())
            if result < 0:
                # libbpf is silent here, and says this where a section names the function
                log = messages() or f"failed to find kernel BTF type ID of '{function}': {result}\n"
                error = StepError(-result, "load", f"{name} at {function}", log, steps.kind_of(program))
                error.section = foreign.section(name)
                raise error


def _check(foreign: Foreign, named: dict[str, Any], known: set[str], what: str) -> None:
    for key, values in named.items():
        for name in values:
            if name not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise ManifestError(
                    f'object."{foreign.name}".{key}: the object has no {what} {name} (it has: {listed})'
                )


def _set_variable(pointer: int, foreign: Foreign, name: str, value: Any) -> None:  # noqa: ANN401 - a value of TOML
    section, offset, size = foreign.file.variables[name]
    data = encoded(value, size)
    if data is None:
        raise ManifestError(f'object."{foreign.name}".variables.{name}: {value} does not fit its {size} bytes')
    length = c_size_t()
    values = libbpf().bpf_object__find_map_by_name(pointer, section.encode())
    address = libbpf().bpf_map__initial_value(values, ctypes.byref(length))
    assert address, f"{section} has no initial value"
    ctypes.memmove(address + offset, data, size)


def encoded(value: Any, size: int) -> bytes | None:  # noqa: ANN401 - a value of TOML
    """Return a number, or one for each element, as a variable of ``size`` bytes has it; None when it does not fit."""
    numbers = [int(number) for number in value] if isinstance(value, list | tuple) else [int(value)]
    if not numbers or size % len(numbers):
        return None
    each = size // len(numbers)
    try:
        return b"".join(number.to_bytes(each, "little", signed=number < 0) for number in numbers)
    except OverflowError:
        return None


def _set_section(foreign: Foreign, program: int, name: str, section: str) -> None:
    if (types := types_of_section(section)) is None:
        raise ManifestError(f'object."{foreign.name}".sections.{name}: libbpf knows no section {section}')
    kind, attach = types
    steps.checked(libbpf().bpf_program__set_type(program, kind), "open", name)
    steps.checked(libbpf().bpf_program__set_expected_attach_type(program, attach), "open", name)


def set_autoload(programs: dict[str, int], names: frozenset[str]) -> None:
    """Let only these programs be loaded."""
    for name, program in programs.items():
        steps.checked(libbpf().bpf_program__set_autoload(program, c_bool(name in names)), "open", name)
