"""What the host and a guest say to each other when mutants are tried: frames with JSON. Pure, for both sides."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from typing import Any

from kernel_matrix.shared.channel import frames

#: host to guest: the mutant's object, and then the `Trial` that uses it
OBJECT, TRIAL = b"o", b"r"
#: guest to host: a sign of life; the node id of the test that begins; the `Result` of the trial, the last frame of it
ALIVE, TEST, RESULT = b"t", b"n", b"x"

_MESSAGE = struct.Struct("!bii")
_CHANNEL_DATA = 4


@dataclass(frozen=True, slots=True)
class Begin:
    """What a guest collects before it is saved."""

    #: pytest's arguments
    arguments: tuple[str, ...]
    #: its worker's input, as `worker_input.pack` returns it
    worker: dict[str, Any]

    def encoded(self) -> bytes:
        """Return it in the form of an execnet message: with it the relay's preamble ends (`relay.preamble`)."""
        payload = json.dumps(asdict(self)).encode()
        return _MESSAGE.pack(_CHANNEL_DATA, 0, len(payload)) + payload


#: bytes of such a message before its payload
HEADER = _MESSAGE.size


def payload_size(header: bytes) -> int:
    """Return the size of the payload that follows this header of a `Begin`."""
    size: int = _MESSAGE.unpack(header)[2]
    return size


def begin_of(payload: bytes) -> Begin:
    """Read the payload of a `Begin`."""
    fields = json.loads(payload)
    return Begin(tuple(fields["arguments"]), fields["worker"])


@dataclass(frozen=True, slots=True)
class Trial:
    """Run these tests with an object in place of the compiled one."""

    #: the object's name: ``packets`` is build/packets.bpf.o
    object: str
    #: files, folders, test functions and node ids of the tests
    tests: tuple[str, ...]
    #: node ids that run before the others, with the rest of their files
    first: tuple[str, ...]
    #: seconds for all of them; the guest is of no use any more where they are not enough
    seconds: float
    #: whether the first failure ends it
    stops: bool = True
    #: the limits of tests and of their waits, as a part of what they are in a run of the matrix
    limits: float = 1.0

    def encoded(self) -> bytes:
        """Return it as a frame."""
        return frames.frame(TRIAL, json.dumps(asdict(self)).encode())


def trial_of(payload: bytes) -> Trial:
    """Read the payload of a `Trial`."""
    fields = json.loads(payload)
    return Trial(**{**fields, "tests": tuple(fields["tests"]), "first": tuple(fields["first"])})


@dataclass(frozen=True, slots=True)
class Result:
    """What a guest found out in a trial."""

    #: the tests that failed, each a node id and the failure's last line
    failed: tuple[tuple[str, str], ...] = ()
    #: for a failure in which the object was not opened or loaded: why
    refused: str = ""
    #: how many tests ran, the failed ones included
    tests: int = 0
    seconds: float = 0.0
    #: why the trial says nothing about the object: nothing was collected, no test was selected
    invalid: str = ""
    #: why the guest is not to be used again; empty where it is as before
    spoiled: str = ""
    #: whether a limit of time decided
    late: bool = False

    def payload(self) -> bytes:
        """Return the payload of its frame."""
        return json.dumps(asdict(self)).encode()


def result_of(payload: bytes) -> Result:
    """Read the payload of a `Result`."""
    fields: dict[str, Any] = json.loads(payload)
    return Result(**{**fields, "failed": tuple((test, why) for test, why in fields["failed"])})
