"""A result set as SARIF 2.1.0, which code hosts show beside the source lines. Pure.

A red cell is at the source line of its program, where the cell is of an object whose line information is known: the
line that the verifier refused, else the program's first one. Every other cell is at its test. What the kernel refused
as a test declared is informational.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from kernel_matrix.results.document import Document
from kernel_matrix.results.evidence import ObjectEvidence, ProgramSource
from kernel_matrix.results.text import plain, reason
from kernel_matrix.shared.outcomes.cells import Cell, Outcome

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: an instruction in the verifier's log: ``12: (85) call bpf_map_lookup_elem#1``
_INSTRUCTION = re.compile(r"^(\d+): \([0-9a-f]{2}\) ", re.MULTILINE)
#: a source line there, with its place, from 6.9 on: ``; return 0; @ x.bpf.c:12``
_PLACE = re.compile(r"^; .* @ ([^\s:]+):(\d+)$", re.MULTILINE)
#: characters of a result's message
_MESSAGE = 1000


class _Struct(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An object of the format; what is not set is left out."""


class _Message(_Struct, frozen=True):
    text: str


class _ArtifactLocation(_Struct, frozen=True):
    uri: str


class _Region(_Struct, frozen=True):
    start_line: int


class _PhysicalLocation(_Struct, frozen=True):
    artifact_location: _ArtifactLocation
    region: _Region | None = None


class _LogicalLocation(_Struct, frozen=True):
    fully_qualified_name: str


class _Location(_Struct, frozen=True):
    physical_location: _PhysicalLocation
    logical_locations: tuple[_LogicalLocation, ...]


class _Result(_Struct, frozen=True):
    rule_id: str
    kind: str
    level: str
    message: _Message
    locations: tuple[_Location, ...]
    partial_fingerprints: dict[str, str]
    properties: dict[str, object]


class _Rule(_Struct, frozen=True):
    id: str
    short_description: _Message


class _Driver(_Struct, frozen=True):
    name: str
    version: str
    rules: tuple[_Rule, ...] = ()


class _Tool(_Struct, frozen=True):
    driver: _Driver


class _Invocation(_Struct, frozen=True):
    #: whether the run came to an end; what it found does not count
    execution_successful: bool
    exit_code: int
    start_time_utc: str


class _Artifact(_Struct, frozen=True):
    location: _ArtifactLocation
    hashes: dict[str, str]


class _Run(_Struct, frozen=True):
    tool: _Tool
    invocations: tuple[_Invocation, ...]
    results: tuple[_Result, ...]
    artifacts: tuple[_Artifact, ...] = ()
    column_kind: str = "unicodeCodePoints"


class _Log(msgspec.Struct, frozen=True, rename={"schema": "$schema"}):
    schema: str
    version: str
    runs: tuple[_Run, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A source file, and a line in it; 0: no line is known."""

    file: str
    line: int = 0


def sarif(document: Document) -> bytes:
    """Return the result set; cells of a test that differ only in their kernel are one result."""
    objects = _by_name(document.objects)
    groups: dict[tuple[str, Outcome, str, Place], list[Cell]] = {}
    for cell in document.cells:
        if not cell.outcome.green or cell.outcome is Outcome.REFUSED:
            key = cell.test, cell.outcome, reason(cell.detail), place(cell, objects)
            groups.setdefault(key, []).append(cell)
    results = tuple(_result(*key, cells) for key, cells in groups.items())
    used = {outcome for _, outcome, _, _ in groups}
    rules = tuple(_Rule(str(one), _Message(f"a test whose outcome is {one}")) for one in Outcome if one in used)
    driver = _Driver("kernel-matrix", importlib.metadata.version("kernel-matrix"), rules)
    ended = document.exit_status in {0, 1}
    invocation = _Invocation(ended, document.exit_status, _utc(document.started))
    artifacts = tuple(_Artifact(_location(one.name), {"sha-256": one.sha256}) for one in document.objects)
    return _encoded(_Log(_SCHEMA, "2.1.0", (_Run(_Tool(driver), (invocation,), results, artifacts),)))


def place(cell: Cell, objects: Mapping[tuple[str, str], ObjectEvidence]) -> Place:
    """Return where a cell's result belongs in the source: with the object's line information, or at its test."""
    path, _, rest = cell.test.partition("::")
    tested = objects.get((path, cell.kernel))
    if tested is None:
        line = re.search(rf"^{re.escape(path)}:(\d+): ", cell.detail, re.MULTILINE)
        return Place(path, int(line[1]) if line else 0)
    name = rest.partition("::")[0] or cell.detail.partition(":")[0]
    program = next((one for one in tested.programs if one.name == name and one.lines), None)
    if program is None:
        return Place(tested.files[0] if len(tested.files) == 1 else path)
    return _refused(cell.verifier, program, tested.files)


def _refused(log: str, program: ProgramSource, files: tuple[str, ...]) -> Place:
    """Return the line of a program at which the verifier stopped; its first one where the log does not say it."""
    _, first_file, first_line = program.lines[0]
    instructions = [*_INSTRUCTION.finditer(log)]
    if not instructions:
        return Place(files[first_file], first_line)
    last = instructions[-1]
    named = [*_PLACE.finditer(log, 0, last.start())]
    fitting = [file for file in files if named and file.rpartition("/")[2] == named[-1][1]]
    if len(fitting) == 1:
        return Place(fitting[0], int(named[-1][2]))
    number = int(last[1])
    before = [line for line in program.lines if line[0] <= number]
    # behind the program's own instructions are those of functions that it calls: their place in it is the loader's
    _, file, line = before[-1] if number <= program.lines[-1][0] else program.lines[0]
    return Place(files[file], line)


def _by_name(objects: Iterable[ObjectEvidence]) -> dict[tuple[str, str], ObjectEvidence]:
    return {(one.name, kernel): one for one in objects for kernel in one.kernels}


def _result(test: str, outcome: Outcome, why: str, where: Place, cells: list[Cell]) -> _Result:
    kernels = [cell.kernel for cell in cells]
    head = f"{outcome} on {', '.join(kernels)}: {test}"
    text = "\n".join(filter(None, [head, why, *dict.fromkeys(plain(cell.diagnosis) for cell in cells)]))
    fingerprint = hashlib.sha256(f"{test}\0{outcome}".encode("utf-8", "replace")).hexdigest()
    red = not outcome.green
    region = _Region(where.line) if where.line else None
    return _Result(
        rule_id=str(outcome),
        kind="fail" if red else "informational",
        level="error" if red else "none",
        message=_Message(_valid(text[:_MESSAGE])),
        locations=(
            _Location(_PhysicalLocation(_location(where.file), region), (_LogicalLocation(_valid(test)),)),
        ),
        partial_fingerprints={"kernelMatrixTest/v1": fingerprint},
        properties={
            "kernels": [_valid(kernel) for kernel in kernels],
            "releases": list(dict.fromkeys(cell.release for cell in cells if cell.release)),
        },
    )  # fmt: skip


def _location(path: str) -> _ArtifactLocation:
    """Return a path in the project as a relative URI; any other path as the file's own."""
    quoted = quote(path, safe="/", errors="replace")
    return _ArtifactLocation(f"file://{quoted}" if path.startswith("/") else quoted)


def _utc(started: str) -> str:
    """Return a time as the format has it: ``Z`` for UTC, in which runs begin."""
    return started.removesuffix("+00:00") + "Z" if started.endswith("+00:00") else started


def _valid(text: str) -> str:
    """Return the text with characters replaced that UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def _encoded(log: _Log) -> bytes:
    return msgspec.json.format(msgspec.json.encode(log), indent=1) + b"\n"
