"""A result set as JUnit XML. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from kernel_matrix.results.findings import by_kernel
from kernel_matrix.shared.outcomes.cells import Cell

#: the characters that XML 1.0 cannot hold
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(cells: Iterable[Cell]) -> bytes:
    """Return JUnit XML: one suite per kernel, test cases named like their node ids."""
    xml = JUnitXml("kernel-matrix")
    for kernel, column in by_kernel(cells).items():
        suite = TestSuite(kernel)
        suite.add_property("release", next((cell.release for cell in column if cell.release), ""))
        for cell in column:
            suite.add_testcase(_case(cell))
        suite.update_statistics()
        xml.add_testsuite(suite)
    xml.update_statistics()
    text: bytes = xml.tostring()
    return text


def _case(cell: Cell) -> TestCase:
    path, _, name = cell.test.partition("::")
    classname = f"{cell.kernel}.{path.removesuffix('.py').replace('/', '.')}"
    case = TestCase(f"{name or path}[{cell.kernel}]", classname, cell.duration)
    first = cell.detail.partition("\n")[0]
    kind = cell.outcome.traits.junit
    if kind == "skipped":
        case.result = [Skipped(f"{cell.outcome}: {first}")]
    elif kind != "passed":
        element = Failure if kind == "failure" else Error
        result = element(_printable(f"{cell.outcome}: {first}"), str(cell.outcome))
        parts = [cell.detail, *(["diagnosis:", cell.diagnosis] if cell.diagnosis else [])]
        result.text = _printable("\n".join(parts))
        case.result = [result]
    parts = [f"{title}:\n{text}" for title, text in (("kernel log", cell.log), ("verifier log", cell.verifier)) if text]
    if parts:
        case.system_out = _printable("\n".join(parts))
    return case


def _printable(text: str) -> str:
    """Remove the characters that XML 1.0 cannot hold (a console is full of escape sequences)."""
    return _NOT_XML.sub("", text)
