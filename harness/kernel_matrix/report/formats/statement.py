"""A result set as an in-toto statement with the predicate test-result, for a CI that signs it. Pure.

https://in-toto.io/Statement/v1 and https://in-toto.io/attestation/test-result/v0.1: its subjects are the tested
objects, its configuration is all else that decides the outcomes. A run without objects has no statement: a statement
without a subject says nothing of anything.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kernel_matrix.results.document import Column, Document
from kernel_matrix.results.evidence import Digest
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.outcomes.cells import Cell, Outcome

_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"


class _Descriptor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ResourceDescriptor."""

    name: str
    digest: dict[str, str]
    annotations: dict[str, object] = {}


class _Predicate(msgspec.Struct, frozen=True, rename="camel"):
    result: str
    configuration: tuple[_Descriptor, ...]
    passed_tests: tuple[str, ...]
    warned_tests: tuple[str, ...]
    failed_tests: tuple[str, ...]


class _Statement(msgspec.Struct, frozen=True, rename={"type_": "_type", "predicate_type": "predicateType"}):
    type_: str
    subject: tuple[_Descriptor, ...]
    predicate_type: str
    predicate: _Predicate


def statement(document: Document) -> bytes | None:
    """Return the statement; None for a run without objects.

    A test is named like the cell that `rerun` takes. A skipped test is in no list: it neither passed nor failed.
    """
    subjects = tuple(
        _Descriptor(one.name, {"sha256": one.sha256}, {"kernels": list(one.kernels)}) for one in document.objects
    )
    if not subjects:
        return None
    tests: dict[str, list[str]] = {"passed": [], "warned": [], "failed": []}
    for cell in document.cells:
        if verdict := _verdict(cell.outcome):
            tests[verdict].append(_name(cell))
    predicate = _Predicate(
        _result(document, tests),
        tuple(_configuration(document)),
        *(tuple(name.encode("utf-8", "replace").decode() for name in names) for names in tests.values()),
    )
    encoded = msgspec.json.encode(_Statement(_TYPE, subjects, _PREDICATE, predicate))
    return msgspec.json.format(encoded, indent=1) + b"\n"


def _name(cell: Cell) -> str:
    """Return a cell's name; what is no test is a file, or a step of a guest, of a kernel."""
    if "::" in cell.test:
        return expect.join_nodeid(cell.test, cell.kernel)
    return f"{cell.test}[{cell.kernel}]"


def _verdict(outcome: Outcome) -> str:
    """Return the list of an outcome; empty: none. An expected failure passed with a warning."""
    if not outcome.green:
        return "failed"
    if outcome.traits.done:
        return "passed"
    return "warned" if outcome is Outcome.XFAIL else ""


def _result(document: Document, tests: dict[str, list[str]]) -> str:
    """Return the run's result, which its exit status decides; nothing that passed is no success."""
    if document.exit_status:
        return "FAILED"
    return "PASSED" if tests["passed"] and not tests["warned"] else "WARNED"


def _configuration(document: Document) -> Iterator[_Descriptor]:
    """Yield what the run was configured by, and what each kernel's guests were made of."""
    for digest in document.configuration:
        yield _Descriptor(digest.name, {"sha256": digest.sha256})
    for column in document.columns:
        for digest in column.digests:
            yield _of_column(column, digest)


def _of_column(column: Column, digest: Digest) -> _Descriptor:
    annotations: dict[str, object] = {"kernel": column.kernel}
    if digest.name == "kernel":
        annotations |= {"requested": column.release, "observed": list(column.observed), "version": column.version}
    return _Descriptor(f"{column.kernel}/{digest.name}", {"sha256": digest.sha256}, annotations)
