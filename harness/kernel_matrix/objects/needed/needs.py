"""What each program of an object file uses: helpers, functions of the kernel, maps, externs, relocations. Pure.

A program's functions count: those that it calls, and those whose address it passes on (callbacks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from kernel_matrix.objects import code
from kernel_matrix.objects.code import Instruction
from kernel_matrix.objects.object_file import Function, ObjectFile
from kernel_matrix.objects.types.btf_ext import Relocation
from kernel_matrix.objects.types.context_reads import called


@dataclass(slots=True)
class Used:
    """What a program uses."""

    #: numbers of helpers
    helpers: set[int] = field(default_factory=set)
    #: names of the kernel's functions, and of the externs that are no functions
    functions: set[str] = field(default_factory=set)
    externs: set[str] = field(default_factory=set)
    maps: set[str] = field(default_factory=set)
    #: with the instruction of each
    relocations: list[tuple[Relocation, Instruction]] = field(default_factory=list)


def of_program(of: ObjectFile, program: Function) -> Used:
    """Return what a program uses."""
    used = Used()
    externs = {extern.name for extern in of.externs}
    relocations: dict[tuple[str, int], list[Relocation]] = {}
    for record in of.extension.relocations:
        relocations.setdefault((record.section, record.offset), []).append(record)
    for function in reachable(of, program):
        links = of.links.get(function.section, {})
        for one in instructions(of, function):
            used.relocations += [(record, one) for record in relocations.get((function.section, one.at), [])]
            link = links.get(one.at)
            if one.opcode == code.CALL and one.src == 0:
                used.helpers.add(one.imm)
            elif link is not None and not link.section and one.opcode == code.CALL:
                used.functions.add(link.name)
            elif link is not None and link.name in externs:
                used.externs.add(link.name)
            elif link is not None and (name := _map(of, link.name, link.section)):
                used.maps.add(name)
    return used


def _map(of: ObjectFile, name: str, section: str) -> str:
    """Return the map that a symbol is, or is a variable of; empty: it is none."""
    return name if name in of.maps else section if section in of.maps else ""


def instructions(of: ObjectFile, function: Function) -> Iterator[Instruction]:
    """Yield a function's instructions."""
    return code.decode(of.code[function.section][function.start : function.end], of.order, function.start)


def reachable(of: ObjectFile, program: Function) -> tuple[Function, ...]:
    """Return a program and all functions of the object that it calls or passes on."""
    functions = {program: None}
    waiting = [program]
    while waiting:
        function = waiting.pop()
        links = of.links.get(function.section, {})
        for one in instructions(of, function):
            link = links.get(one.at)
            calls = one.opcode == code.CALL and one.src == code.OWN_FUNCTION and (link is None or link.section)
            # the loader marks an address as that of a function only when it loads
            passes = one.opcode == code.LOAD_WIDE and link is not None and link.section in of.code
            if (calls or passes) and (target := called(of, function.section, one)) and target not in functions:
                functions[target] = None
                waiting.append(target)
    return tuple(functions)
