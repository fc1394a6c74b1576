"""Measure the structure from the imports: rooms, floors, and arrows between rooms (``nox -s structure``).

A room is a package directly below ``kernel_matrix`` or ``kernel_matrix.guest``; the modules beside them are the front
door. A room is one floor above the highest room that it imports. What is large has packages of its own inside.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from graphlib import CycleError, TopologicalSorter

import grimp

ENGINE = "kernel_matrix"
#: upper limits; before a new room or arrow exceeds one, look for a better home for the code
LIMITS = {"rooms": 25, "floors": 8, "arrows": 80, "modules in a package": 10}

#: room -> the rooms that it imports
Rooms = Mapping[str, AbstractSet[str]]


def room(module: str) -> str:
    """Return the room of a module: ``kernel_matrix.guest.bpf.steps`` is in ``guest.bpf``."""
    parts = module.split(".")[1:-1]
    return ".".join(parts[: 2 if parts[:1] == ["guest"] else 1]) or "(front door)"


def packages_of(graph: grimp.ImportGraph) -> set[str]:
    """Return the modules that have others inside."""
    return {module for module in graph.modules if graph.find_children(module)}


def largest(graph: grimp.ImportGraph) -> int:
    """Return how many modules the largest package has, beside the packages inside of it."""
    return max(Counter(module.rpartition(".")[0] for module in graph.modules - packages_of(graph)).values())


def measure(graph: grimp.ImportGraph) -> Rooms:
    """Return the rooms of this project."""
    packages = packages_of(graph)
    # the module of a package is in its room, too
    home = {module: room(f"{module}.x" if module in packages else module) for module in graph.modules - {ENGINE}}
    rooms: dict[str, set[str]] = {name: set() for name in home.values()}
    for module, importer in home.items():
        imported = graph.find_modules_directly_imported_by(module) - {ENGINE}
        rooms[importer] |= {home[name] for name in imported} - {importer}
    return rooms


def floors(rooms: Rooms) -> dict[str, int]:
    """Return each room's floor, from 1; raises CycleError where rooms import each other."""
    floor: dict[str, int] = {}
    for name in TopologicalSorter(rooms).static_order():
        floor[name] = 1 + max((floor[imported] for imported in rooms.get(name, ())), default=0)
    return floor


def counts(rooms: Rooms) -> dict[str, int]:
    """Return the numbers that `LIMITS` limits; raises CycleError."""
    return {
        "rooms": len(rooms),
        "floors": max(floors(rooms).values(), default=0),
        "arrows": sum(len(imported) for imported in rooms.values()),
    }


def main() -> int:
    """Print the rooms, the highest first; return 1 where a limit is exceeded or rooms import each other."""
    graph = grimp.build_graph(ENGINE)
    rooms = measure(graph)
    try:
        floor, measures = floors(rooms), counts(rooms) | {"modules in a package": largest(graph)}
    except CycleError as error:
        print(f"rooms that import each other: {' -> '.join(error.args[1])}")
        return 1
    for name in sorted(rooms, key=lambda name: (-floor[name], name)):
        print(f"{floor[name]} {name:14} -> {', '.join(sorted(rooms[name])) or '-'}")
    print(", ".join(f"{number} {what} (at most {LIMITS[what]})" for what, number in measures.items()))
    return int(any(number > LIMITS[what] for what, number in measures.items()))


if __name__ == "__main__":
    sys.exit(main())
