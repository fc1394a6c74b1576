"""The structure as it is: rooms, floors, and arrows between rooms, measured from the imports (``nox -s structure``).

A room is a package directly below ``kernel_matrix`` or ``kernel_matrix.guest``; what stands beside them is the front
door. A room is one floor above the highest that it imports.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from graphlib import CycleError, TopologicalSorter

import grimp

ENGINE = "kernel_matrix"
#: at most so many; a room more than that, or an arrow, asks for a better place first
LIMITS = {"rooms": 25, "floors": 8, "arrows": 80}

#: room -> the rooms that it imports
Rooms = Mapping[str, AbstractSet[str]]


def room(module: str) -> str:
    """Return the room of a module: ``guest.bpf`` is that of ``kernel_matrix.guest.bpf.steps``; some have none."""
    parts = module.split(".")[1:-1]
    return ".".join(parts[: 2 if parts[:1] == ["guest"] else 1]) or "(front door)"


def measured() -> Rooms:
    """Return the rooms of this project."""
    graph = grimp.build_graph(ENGINE)
    packages = {module for module in graph.modules if graph.find_children(module)}
    # a package's own module is in its room, too
    home = {module: room(f"{module}.x" if module in packages else module) for module in graph.modules - {ENGINE}}
    rooms: dict[str, set[str]] = {name: set() for name in home.values()}
    for module, own in home.items():
        imported = graph.find_modules_directly_imported_by(module) - {ENGINE}
        rooms[own] |= {home[each] for each in imported} - {own}
    return rooms


def floors(rooms: Rooms) -> dict[str, int]:
    """Return each room's floor, from 1; raises CycleError where a room imports one above it."""
    floor: dict[str, int] = {}
    for name in TopologicalSorter(rooms).static_order():
        floor[name] = 1 + max((floor[each] for each in rooms.get(name, ())), default=0)
    return floor


def counts(rooms: Rooms) -> dict[str, int]:
    """Return what `LIMITS` limits; raises CycleError."""
    return {
        "rooms": len(rooms),
        "floors": max(floors(rooms).values(), default=0),
        "arrows": sum(len(imported) for imported in rooms.values()),
    }


def main() -> int:
    """Print the rooms, the highest first; return 1 where there are too many, or they import in a circle."""
    rooms = measured()
    try:
        floor, found = floors(rooms), counts(rooms)
    except CycleError as error:
        print(f"rooms that import each other: {' -> '.join(error.args[1])}")
        return 1
    for name in sorted(rooms, key=lambda name: (-floor[name], name)):
        print(f"{floor[name]} {name:14} -> {', '.join(sorted(rooms[name])) or '-'}")
    print(", ".join(f"{number} {what} (at most {LIMITS[what]})" for what, number in found.items()))
    return int(any(number > LIMITS[what] for what, number in found.items()))


if __name__ == "__main__":
    sys.exit(main())
