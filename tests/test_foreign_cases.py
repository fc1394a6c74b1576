"""The expectations of tests/cases are complete and about what is there; the recorded results agree with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import foreign_cases
from tests.foreign_cases import CASES, PASSES, REFUSALS, Wanted


@pytest.mark.parametrize("cases", [CASES, REFUSALS])
def test_every_expectation_names_a_source(cases: Path) -> None:
    sources = {str(path.relative_to(cases)).replace(".c", ".o") for path in cases.glob("*/*.bpf.c")}
    assert {pattern.partition("::")[0] for pattern in foreign_cases.expected(cases)} <= sources


@pytest.mark.parametrize("cases", [CASES, REFUSALS])
def test_every_folder_has_a_line_in_the_readme(cases: Path) -> None:
    folders = {path.name for path in cases.iterdir() if path.is_dir()}
    readme = (cases / "README.md").read_text()
    assert [name for name in sorted(folders) if f"| `{name}` |" not in readme] == []


def test_what_is_refused_at_attach_has_no_capabilities() -> None:
    """What has no target is measured by loading it; what is listed for itself is as listed."""
    table = {
        "a/x.o::p::attach": {"5.10": Wanted("fail", "refused at attach"), "6.1": Wanted("undeclared", "its section")},
        "a/x.o::q::*": {"5.10": Wanted("fail", "refused at load")},
    }
    assert foreign_cases.wanted("a/x.o::p::capabilities", "5.10", table).outcome == "fail"
    assert foreign_cases.wanted("a/x.o::p::capabilities", "6.1", table) == PASSES
    assert foreign_cases.wanted("a/x.o::p::load", "5.10", table) == PASSES
    assert foreign_cases.wanted("a/x.o::q::capabilities", "5.10", table).text == "refused at load"
    assert foreign_cases.wanted("a/x.o::q::capabilities", "6.1", table) == PASSES
