"""A scenario: what is done while an object is attached, and what must hold then. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: the node below an object that its scenarios are below: ``x.bpf.o::scenario::NAME``
NODE = "scenario"
#: the names that stand for numbers that only a run knows: the last process of the scenario, and the interface's index
PID, INTERFACE = "$pid", "$ifindex"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done."""

    #: ``put`` a value into a map, ``send`` a frame, ``run`` a program, or ``connect``
    act: str
    #: the map, the frame in scapy's notation, the command, or the address
    what: str
    times: int = 1
    #: send: the processor that sends, and so the one that receives
    cpu: int = 0
    #: run: the exit status that it must have
    status: int = 0
    #: connect: ``tcp`` or ``udp``, and the name of the errno that it must fail with; empty: it must work
    protocol: str = "tcp"
    errno: str = ""
    #: put: the entry
    key: Any = None
    value: Any = None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold."""

    #: ``map``, ``variable`` or ``events``
    of: str
    #: the map, variable or buffer
    name: str
    #: ``value``, ``added``, ``absent``, ``keys`` of maps; ``value``, ``added`` of variables; ``values``, ``count`` of
    #: events
    rule: str
    wanted: Any = None
    #: map: the entry; and of its values that of one processor, None: their sum
    key: Any = None
    cpu: int | None = None
    #: events: the struct that they are, and the members by which they are chosen
    struct: str = ""
    where: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return what it is about, such as ``counts[17]``."""
        cpu = "" if self.cpu is None else f" on processor {self.cpu}"
        return f"{self.name}[{shown(self.key)}]{cpu}" if self.key is not None else self.name


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario of an object."""

    name: str
    #: the object's path, its name, or a pattern
    object: str
    do: tuple[Step, ...]
    then: tuple[Check, ...] = ()
    #: the programs that are attached; empty: all that are not called by others
    programs: tuple[str, ...] = ()
    #: how XDP is attached: ``native`` or ``generic``
    xdp: str = "native"
    #: seconds of the reference machine after the steps until all must hold. Then frames have been taken and processes
    #: have ended; what the kernel does later by itself, such as behind RCU, is what they are for
    within: float = 0.05

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> Scenario:
        """Read the result of `dataclasses.asdict` after JSON."""
        return cls(
            fields["name"],
            fields["object"],
            tuple(Step(**step) for step in fields["do"]),
            tuple(Check(**check) for check in fields["then"]),
            tuple(fields["programs"]),
            fields["xdp"],
            fields["within"],
        )


def shown(value: Any) -> str:  # noqa: ANN401 - a value of a table
    """Return a value as the table writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {shown(own)}" for name, own in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)
