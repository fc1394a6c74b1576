"""Load a foreign object as its own loader would: whole, and only where that is refused program by program."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from ctypes import c_bool
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.diagnose.situation import MapFacts
from kernel_matrix.guest.bpf import costing, steps
from kernel_matrix.guest.bpf.foreign import configuring
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.undeclared import Undeclared
from kernel_matrix.guest.bpf.library import captured_messages, libbpf
from kernel_matrix.guest.bpf.step_error import Stage, StepError
from kernel_matrix.guest.bpf.steps import Program
from kernel_matrix.shared.bpf.costs import Cost
from kernel_matrix.shared.outcomes import proposals

#: the stages before the programs are loaded, by what libbpf says of them
_STAGES: dict[Stage, re.Pattern[str]] = {
    "map_create": re.compile(r"^libbpf: map '([^']+)': failed to create( inner map)?", re.MULTILINE),
    "pin": re.compile(r"^libbpf: map '([^']+)': (?:failed to auto-pin|couldn't reuse)", re.MULTILINE),
}
#: kernel/bpf/verifier.c: a kfunc of XDP metadata, in a program that is bound to no device
_FOR_A_DEVICE = "metadata kfuncs require device-bound program"
_REFUSED = re.compile(r"^libbpf: prog '([^']+)': (?:BPF program load failed|failed to load)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LoadedObject:
    """An object in the kernel."""

    #: libbpf's pointers by name; only of programs that are loaded
    programs: dict[str, Program]
    maps: dict[str, int]
    #: where the verifier's statistics of each program are
    logs: dict[str, ctypes.Array[ctypes.c_char]]

    def cost(self, program: str) -> Cost:
        """Return what verifying a program took; raises ValueError when the kernel wrote no statistics."""
        return costing.cost(self.programs[program].fd, self.logs[program].value.decode())


@contextmanager
def loaded(foreign: Foreign, pins: Path | None, *only: str, explain: bool = False) -> Generator[LoadedObject]:
    """Open an object, set what the table declares, load it; unpin and close it at the end.

    ``pins``: a folder of bpffs for its maps that are pinned by name; None: they are not pinned. ``only``:
    programs, with those that their tables name, without the tables that they do not use; none, or empty: all that
    libbpf loads of itself.
    ``explain``: with the verifier's whole log of what it refuses, instead of the statistics of what it accepts. Raises
    StepError, Undeclared.
    """
    lib = libbpf()
    with ExitStack() as stack:
        pointer = stack.enter_context(steps.open_object(foreign.path))
        pointers = {
            lib.bpf_program__name(each).decode(): each for each in steps.iterate("bpf_object__next_program", pointer)
        }
        configuring.configure(foreign, pointer, pointers, stack)
        stack.callback(_unpin, configuring.pin_below(pins, pointer))
        if named := frozenset(filter(None, only)):
            named = named.union(*map(foreign.file.companions, named))
            configuring.set_autoload(pointers, named)
            _leave_out_tables(foreign, pointer, named)
        chosen = {name: program for name, program in pointers.items() if lib.bpf_program__autoload(program)}
        configuring.check_declared(foreign, pointer, chosen)
        for name, program in chosen.items():
            other = stack.enter_context(_other_program(foreign, name))
            configuring.set_target(foreign, name, program, other)
        logs = {} if explain else {name: costing.keep_statistics(name, program) for name, program in chosen.items()}
        with captured_messages() as messages:
            with configuring.bound(foreign, chosen):
                result = lib.bpf_object__load(pointer)
            if result < 0:
                raise _refusal(-result, foreign, pointer, pointers, only[0] if len(only) == 1 else "", messages())
        programs = {name: Program(name, program) for name, program in chosen.items()}
        yield LoadedObject(programs, configuring.maps_of(pointer), logs)


def _refusal(number: int, foreign: Foreign, pointer: int, programs: dict[str, int], only: str, log: str) -> StepError:
    """Return what was refused: a map, a pin, or the program that libbpf names."""
    maps = configuring.maps_of(pointer)
    for stage, pattern in _STAGES.items():
        if (match := pattern.search(log)) and match[1] in maps:
            error = StepError(number, stage, f"{foreign.path.name} {match[1]}", log)
            error.map = map_facts(foreign, match[1], maps[match[1]], inner=stage == "map_create" and bool(match[2]))
            return error
    named = _REFUSED.search(log)
    program = named[1] if named and named[1] in programs else only
    kind = steps.kind_of(programs[program]) if program else ""
    error = StepError(number, "load", " ".join(filter(None, (foreign.path.name, program))), log, kind)
    error.section = foreign.section(program)
    if program and kind != "struct_ops":
        attach_type = libbpf().bpf_program__expected_attach_type(programs[program])
        error.attach_type = libbpf().libbpf_bpf_attach_type_str(attach_type).decode()
    error.blamed = named is not None
    if _FOR_A_DEVICE in log and program not in foreign.settings.device_bound:
        raise Undeclared(
            f"{program} reads what a device says of a frame: its loader loads it for one interface",
            proposals.listing(foreign.name, "device-bound", program),
        )
    return error


def map_facts(foreign: Foreign, name: str, map_pointer: int, *, inner: bool = False) -> MapFacts:
    """Return what a map is made from, or with ``inner`` the one that those in a map of maps are like."""
    users, programs = foreign.file.users(name), len(foreign.file.programs)
    if inner:
        name, map_pointer = f"{name} (its inner map)", libbpf().bpf_map__inner_map(map_pointer)
    spec = steps.spec_of(map_pointer)
    return MapFacts(
        name, spec.type, spec.key, spec.value, spec.entries, libbpf().bpf_map__map_flags(map_pointer), users, programs
    )


def _leave_out_tables(foreign: Foreign, pointer: int, programs: frozenset[str]) -> None:
    """Leave out tables of programs that these do not use: the kernel lacks the programs to fill them with.

    libbpf fills a table also where it does not make it (init_prog_array_slots()): only what is none is not filled.
    """
    used = frozenset().union(*(foreign.file.uses.get(name, frozenset()) for name in programs))
    maps = configuring.maps_of(pointer)
    for name in foreign.file.tables.keys() & maps.keys() - used:
        steps.checked(libbpf().bpf_map__set_type(maps[name], steps.type_numbers("map")["array"]), "open", name)
        steps.checked(libbpf().bpf_map__set_autocreate(maps[name], c_bool(False)), "open", name)  # noqa: FBT003


@contextmanager
def _other_program(foreign: Foreign, name: str) -> Generator[int]:
    """Load the program of which a program replaces or traces a function; yield its fd, 0 for any other program."""
    replaces = foreign.section(name).partition("/")[0] == "freplace"
    target = foreign.settings.replaces.get(name) if replaces else foreign.traced_program(name)
    if target is None:
        raise Undeclared(
            f"{name} replaces a function of a program that its loader chooses",
            foreign.line("replaces", name, '"OBJECT:PROGRAM"'),
        )
    if not target:
        yield 0
        return
    file, _, program = target.rpartition(":")
    path = foreign.path if not file else foreign.path.parent / file
    with steps.loaded(path, program) as other:
        yield other.programs[program].fd


def _unpin(pins: list[Path]) -> None:
    for pin in pins:
        # an object that is refused has not pinned all of its maps
        if pin.exists():
            pin.unlink()
