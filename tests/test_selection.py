"""Which guests with a kernel command line of their own a run needs, and what is refused before one boots."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.config import manifest
from kernel_matrix.plan import selection
from kernel_matrix.plan.selection import Selection
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project
from tests.projects import ROOT, below

_NAMES = {f"{kernel}+{variant}": variant for kernel in ("5.10", "6.1") for variant in ("quiet", "loud")}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    suites = tmp_path / "suites"
    suites.mkdir()
    (suites / "test_plain.py").write_text("def test_plain(): pass\n")
    (suites / "test_marked.py").write_text(
        "from kernel_matrix.guest.pytest.marks import boots_with\n"
        '@boots_with("quiet")\ndef test_quiet(): pass\n'
        '@boots_with("loud", "quiet")\ndef test_both(): pass\n'
    )
    (tmp_path / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    return below(tmp_path)


def test_files_without_the_mark_need_no_guest_and_no_collection(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    assert selection.guests(project, Selection(("suites/test_plain.py",), ("-k", "plain")), _NAMES) == set()
    assert selection.guests(project, Selection(("suites",)), _NAMES) == set(_NAMES)


@pytest.mark.parametrize(
    ("arguments", "options", "guests"),
    [
        (["suites"], ["-k", "plain"], set()),
        (["suites"], ["-k", "test_quiet"], {"5.10+quiet", "6.1+quiet"}),
        (["suites"], ["-k", "both and 6.1"], {"6.1+quiet", "6.1+loud"}),
        (["suites/test_marked.py::test_both"], [], set(_NAMES)),
        (["suites/test_marked.py::test_both[6.1+loud]"], [], {"6.1+loud"}),
        (["suites/test_plain.py::test_plain", "suites/test_marked.py"], ["-k", "plain"], set()),
    ],
)
def test_a_narrower_choice_is_collected(
    project: Project, arguments: list[str], options: list[str], guests: set[str]
) -> None:
    assert selection.guests(project, Selection(tuple(arguments), tuple(options)), _NAMES) == guests


def test_an_unknown_and_an_unused_variant_are_refused(project: Project) -> None:
    files = selection.variants_by_file(project.root, Selection(("suites",)))
    assert files == {"suites/test_marked.py": {"quiet", "loud"}}
    selection.check(project, files, ["quiet", "loud"])
    with pytest.raises(ManifestError, match=r"suites/test_marked\.py: unknown variant 'loud' .*has: quiet\)"):
        selection.check(project, files, ["quiet"])
    with pytest.raises(ManifestError, match=r"variants\.toml: silent: no test asks for it"):
        selection.check(project, files, ["quiet", "loud", "silent"])
    # what `gate` makes of objects has no suites
    selection.check(replace(project, tests=()), {}, ["quiet", "loud", "silent"])


def test_a_name_that_is_not_written_out_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test_x.py"
    path.write_text("@boots_with(NAME)\ndef test_x(): pass\n")
    with pytest.raises(ManifestError, match=r"test_x\.py:1: boots_with takes names, written out"):
        selection.variants_by_file(tmp_path, Selection(("test_x.py",)))


_VARIANT = '[quiet]\nmeaning = "m"\nappend = ["quiet"]\n'


def test_a_variant_changes_what_a_kernel_has() -> None:
    (variant,) = manifest.parse_variants(_VARIANT + 'adds = ["a"]\nremoves = ["b"]\n', ["a", "b"])
    kernel = manifest.Kernel(tier="core", provider="path", name="6.1", features=("b", "c"))
    assert variant.of(kernel) == "6.1+quiet"
    assert variant.features(kernel) == {"a", "c"}
    assert variant.changes(kernel)
    has_it = manifest.Kernel(tier="core", provider="path", name="6.1", features=("a", "c"))
    assert not variant.changes(has_it)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (_VARIANT + 'adds = ["x"]\n', "variants.toml: quiet: unknown feature 'x'"),
        ('[quiet]\nmeaning = "m"\nappend = []\n', "variants.toml: quiet: "),
        ('[quiet]\nappend = ["x"]\n', "variants.toml: quiet: "),
        ('["a+b"]\nmeaning = "m"\nappend = ["x"]\n', "variants.toml: a+b: not a name"),
    ],
)
def test_a_wrong_variant_is_refused_in_a_line(text: str, line: str) -> None:
    with pytest.raises(ManifestError) as refusal:
        manifest.parse_variants(text, ["a"])
    assert line in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("files", "arguments", "loads"),
    [
        ({"suites/test_a.py": "def test_x(loader: Loader): pass"}, (), True),
        ({"suites/test_a.py": "def test_x(mode, loader): pass"}, ("suites/test_a.py::test_x[6.1]",), True),
        ({"suites/test_a.py": "def test_x(uploader): pass\nx = 'a loader'"}, (), False),
        ({"suites/conftest.py": "def f(loader): pass", "suites/a/test_a.py": "def test_x(f): pass"}, (), True),
        # the conftest of another folder is not above the selected file
        (
            {"suites/b/conftest.py": "def f(loader): pass", "suites/a/test_a.py": "def test_x(): pass"},
            ("suites/a",),
            False,
        ),
        ({"conftest.py": "def f(loader): pass", "suites/test_a.py": "def test_x(): pass"}, ("suites",), True),
    ],
)
def test_a_run_loads_where_a_selected_file_names_the_loader(
    files: dict[str, str], arguments: tuple[str, ...], loads: bool, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert selection.loads(below(tmp_path), arguments) == loads
