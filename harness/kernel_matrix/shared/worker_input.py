"""What the controller gives the worker of a guest, and the names under which it travels through xdist."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from kernel_matrix.shared.features import GuestFacts
from kernel_matrix.shared.project import Program

#: the key of a worker's input, and the title of a report's section under which a kernel is named
WORKER_KEY = "kernel-matrix"
#: below that key: the WorkerInput as JSON, and the channel for a command's output or a kept guest's sign of life
_INPUT, _CHANNEL = "input", "channel"


@dataclass(frozen=True, slots=True)
class WorkerInput:
    """What a guest is for."""

    facts: GuestFacts
    #: why the guest is gone that this worker stands in for, on the host; empty: it is a guest's
    gone: str = ""
    #: the paths that it collects instead of the command line's; empty: those
    arguments: tuple[str, ...] = ()
    #: the file or folder whose tests it runs first; empty: in the order of collection
    begins: str = ""
    #: a command to run in place of tests, and the seconds it may take
    command: tuple[str, ...] = ()
    timeout: float | None = None
    #: whether the guest stays when a test has failed
    keep: bool = False


def pack(given: WorkerInput, channel: object | None) -> dict[str, object]:
    """Return what xdist carries; the same bytes for the same input, by which a saved worker is found again."""
    return {_INPUT: _encode(given), _CHANNEL: channel}


def unpack(carried: dict[str, Any]) -> tuple[WorkerInput, Any]:
    """Read what `pack` made; return the channel too, which execnet has made the other end of."""
    fields = json.loads(carried[_INPUT])
    for name in ("arguments", "command"):
        fields[name] = tuple(fields[name])
    return WorkerInput(**{**fields, "facts": _facts(fields["facts"])}), carried[_CHANNEL]


def encode_facts(facts: GuestFacts) -> str:
    """Return the facts as JSON."""
    return _encode(facts)


def decode_facts(text: str) -> GuestFacts:
    """Read what `encode_facts` made."""
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
        programs=tuple(Program(**each) for each in fields["programs"]),
    )
