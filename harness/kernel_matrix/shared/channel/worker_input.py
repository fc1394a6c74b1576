"""The input of a guest's worker, and its encoding in what xdist sends to workers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from kernel_matrix.shared.bpf.object_table import ObjectTable
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.shared.project import Command, Program

#: the key of a worker's input, and the title of a report's section under which a kernel is named
WORKER_KEY = "kernel-matrix"
#: below that key: the WorkerInput as JSON, and the channel for a command's output or a kept guest's heartbeat
_INPUT, _CHANNEL = "input", "channel"


@dataclass(frozen=True, slots=True)
class WorkerInput:
    """The input of one worker."""

    facts: GuestFacts
    #: why the guest ended that this worker, a process on the host, replaces; empty: the worker is in a guest
    gone: str = ""
    #: the paths that it collects instead of the command line's; empty: those of the command line
    arguments: tuple[str, ...] = ()
    #: the file or folder whose tests it runs first; empty: in the order of collection
    begins: str = ""
    #: a command to run in place of tests, and the seconds it may take
    command: tuple[str, ...] = ()
    timeout: float | None = None
    #: whether the guest is kept when a test has failed
    keep: bool = False


def pack(worker_input: WorkerInput, channel: object | None) -> dict[str, object]:
    """Return the input as xdist sends it: equal bytes for equal input, because a saved worker is found by them."""
    return {_INPUT: _encode(worker_input), _CHANNEL: channel}


def unpack(carried: dict[str, Any]) -> tuple[WorkerInput, Any]:
    """Read the result of `pack`; return the input and the other end of the channel."""
    fields = json.loads(carried[_INPUT])
    for name in ("arguments", "command"):
        fields[name] = tuple(fields[name])
    return WorkerInput(**{**fields, "facts": _facts(fields["facts"])}), carried[_CHANNEL]


def encode_facts(facts: GuestFacts) -> str:
    """Return the facts as JSON."""
    return _encode(facts)


def decode_facts(text: str) -> GuestFacts:
    """Read the result of `encode_facts`."""
    return _facts(json.loads(text))


def _encode(value: Any) -> str:  # noqa: ANN401 - a dataclass
    # a guest has no msgspec; sets are sorted
    return json.dumps(asdict(value), default=sorted)


def _facts(fields: dict[str, Any]) -> GuestFacts:
    return GuestFacts(
        kernel=fields["kernel"],
        features=frozenset(fields["features"]),
        all_features=frozenset(fields["all_features"]),
        kernels={name: frozenset(features) for name, features in fields["kernels"].items()},
        programs=tuple(Program(**program) for program in fields["programs"]),
        loaders=fields["loaders"],
        all_loaders=tuple(fields["all_loaders"]),
        sources=fields["sources"],
        objects=ObjectTable.of_json(fields["objects"]),
        commands=tuple(Command.of_json(command) for command in fields["commands"]),
    )
