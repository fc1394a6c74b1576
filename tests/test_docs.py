"""The pages: made where they can be made, linked, and short where a reader begins."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import commands_page
import pytest

from tests.projects import HERE, ROOT

DOCS = ROOT / "docs"
#: target of a Markdown link or picture, without its anchor
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")


def test_the_page_of_commands_is_what_their_help_makes() -> None:
    assert commands_page.PAGE.read_text() == commands_page.page(), "run `nox -s docs`"


def test_every_command_is_on_its_page() -> None:
    names = re.findall(r"^## (\S+)$", commands_page.page(), re.MULTILINE)
    assert {"matrix", "shell", "rerun", "baseline", "bootstrap", "gate"} <= set(names)
    assert "--kernel NAME" in commands_page.page().partition("## matrix")[2]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", ".github/actions/kernel-matrix/README.md"])
def test_links_of_what_is_no_page_lead_somewhere(name: str) -> None:
    """Those of pages are checked where the site is built (``nox -s docs``)."""
    page = ROOT / name
    links = [match[1] for match in LINK.finditer(page.read_text()) if match[1]]
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_picture_of_the_matrix_shows_every_loader() -> None:
    picture = (DOCS / "matrix.svg").read_text().replace("&#160;", " ")
    missing = [loader for loader in HERE.loaders if f"with {loader}" not in picture]
    assert not missing, "run `python harness/tools/matrix_picture.py` in the environment of `nox`"


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80


def test_every_page_is_in_the_sites_navigation() -> None:
    navigation = (ROOT / "harness" / "tools" / "mkdocs.yml").read_text().partition("nav:")[2]
    assert sorted(re.findall(r"[\w-]+\.md", navigation)) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    beside = {"index.md", "providers.md", "baseline.md"}
    assert {path.name for path in DOCS.glob("*.md")} - beside == set(re.findall(r"docs/([\w-]+\.md)\)", text))


def test_sessions_that_pages_name_exist() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "nox", "--list"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    known = set(re.findall(r"^[*-] (\S+) -> ", listed.stdout, re.MULTILINE))
    pages: list[Path] = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.glob("*.md")]
    named = {name for page in pages for name in re.findall(r"nox -s ([a-z][\w-]*)", page.read_text())}
    assert named
    assert named - known == set()
