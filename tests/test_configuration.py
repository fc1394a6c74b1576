"""The project's table: where it is found, what it says, and a clear line for everything that is wrong in it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from _pytest.config.findpaths import locate_config

from kernel_matrix.config import manifest
from kernel_matrix.config import project as configuration
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Bench, Mutation, Program, Project
from tests.projects import HERE, ROOT

TABLE = "[tool.kernel-matrix]\n"
OWN = "kernel-matrix.toml"


@pytest.fixture(autouse=True)
def no_root_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERNEL_MATRIX_ROOT", raising=False)


def loaded(root: Path, text: str = "", name: str = OWN) -> Project:
    (root / name).write_text(text)
    project = configuration.load(root)
    assert project is not None
    return project


def defaults(root: Path, table: str) -> Project:
    """What a table without keys says."""
    return Project(
        root=root,
        table=table,
        pytest_config="",
        images=configuration.DEFAULT_IMAGES,
        tests=("tests",),
        baselines=root / "baselines",
        own_images=False,
        keeps_baselines=False,
    )


# -- where it is


def test_the_nearest_table_upwards_is_the_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, deep = tmp_path / "a", tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(TABLE)
    # a file without the table is none
    (inner / "pyproject.toml").write_text("[tool.ruff]\n")
    assert configuration.find(deep).root == tmp_path
    (inner / OWN).touch()
    assert configuration.find(deep).root == configuration.find(inner).root == inner
    assert configuration.find(tmp_path).root == tmp_path
    monkeypatch.chdir(deep)
    assert configuration.find().root == inner


def test_its_own_file_comes_before_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f'{TABLE}tests = ["shared"]\n')
    assert configuration.find(tmp_path).tests == ("shared",)
    project = loaded(tmp_path, 'tests = ["own"]\n')
    assert (project.table, project.tests) == (OWN, ("own",))


def test_no_table_at_all_is_a_line_that_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacks = f"{tmp_path}: no project: no kernel-matrix.toml, and no [tool.kernel-matrix] in pyproject.toml, here"
    with pytest.raises(ManifestError) as error:
        configuration.find(tmp_path)
    assert str(error.value) == f"{lacks} or above"
    # a folder that is named is not looked for
    monkeypatch.setenv("KERNEL_MATRIX_ROOT", str(tmp_path))
    monkeypatch.chdir(ROOT)
    with pytest.raises(ManifestError) as error:
        configuration.find()
    assert str(error.value) == lacks


def test_a_root_that_is_named_is_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / OWN).touch()
    (tmp_path / "link").symlink_to("named")
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path / "named", "named", "link", tmp_path / "link"):
        monkeypatch.setenv("KERNEL_MATRIX_ROOT", str(name))
        assert configuration.find(ROOT).root == tmp_path / "named"


@pytest.mark.parametrize("text", ["", "[tool]\n", "tool = 3\n", 'tool = "kernel-matrix"\n', "[tool.other]\nx = 1\n"])
def test_a_pyproject_without_the_table_has_no_project(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert configuration.load(tmp_path) is None


# -- what it says


def test_without_keys_all_has_its_default(tmp_path: Path) -> None:
    assert loaded(tmp_path) == defaults(tmp_path, OWN)
    (tmp_path / "bpf").mkdir()
    assert loaded(tmp_path) == replace(defaults(tmp_path, OWN), sources=tmp_path / "bpf")


def test_a_pyproject_without_keys_has_the_same_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, TABLE, "pyproject.toml") == defaults(tmp_path, "pyproject.toml")


def test_the_engines_kernels_are_whole(tmp_path: Path) -> None:
    known = manifest.load(loaded(tmp_path).images)
    assert known.kernels == manifest.load(HERE.images).kernels
    assert (known.folder / known.root.requirements).is_file()


def test_every_key_is_read(tmp_path: Path) -> None:
    for name in ("kernels", "src/deep", "checks"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("src/deep/x.bpf.c", "src/deep.bpf.c", "checks/measure.py", "ci.yml.j2"):
        (tmp_path / name).touch()
    text = """
images = "kernels"
tests = ["checks/", "more"]
baselines = "expected"
carry = ["checks/", "expected/capabilities.json"]
measure = ["checks/measure.py"]
reports = ["mine:REPORT"]
workflow = "ci.yml.j2"

[compile]
sources = "src"
flags = ["-Wall"]
source-flags = { "deep/x.bpf.c" = ["-DX", "-DY"] }

[[programs]]
object = "o"
program = "p"
type = "xdp"

[[programs]]
object = "o"
program = "q"
type = "kprobe"
symbol = "f"

[bench]
file = "checks/test_a.py"
keyword = "k"
panic = "checks/panic.py"

[mutants]
tests.deep = ["checks/"]
mistakes = "checks/"
options = ["-k", "quick"]
"""
    expected = Project(
        root=tmp_path,
        table=OWN,
        pytest_config="",
        images=tmp_path / "kernels",
        sources=tmp_path / "src",
        flags=("-Wall",),
        source_flags={"deep/x.bpf.c": ("-DX", "-DY")},
        tests=("checks", "more"),
        baselines=tmp_path / "expected",
        programs=(Program("o", "p", "xdp"), Program("o", "q", "kprobe", "f")),
        carry=("checks", "expected/capabilities.json"),
        measure=("checks/measure.py",),
        reports=("mine:REPORT",),
        workflow="ci.yml.j2",
        bench=Bench("checks/test_a.py", "k", "checks/panic.py"),
        mutation=Mutation("checks", {"deep": ("checks",)}, ("-k", "quick")),
    )
    assert loaded(tmp_path, text) == expected
    assert expected.capabilities == tmp_path / "expected/capabilities.json"
    assert expected.mutants == tmp_path / "expected/mutants.json"
    assert expected.durations == tmp_path / "expected/durations.json"
    assert expected.matrix_baselines == tmp_path / "expected/matrix"
    assert [expected.is_test(path) for path in ("checks", "checks/a.py", "checks2/a.py", "src")] == [
        True,
        True,
        False,
        False,
    ]


def test_what_this_repository_names_is_there() -> None:
    assert HERE.sources == ROOT / "bpf"
    for path in (*HERE.tests, *HERE.carry, *HERE.measure, HERE.workflow, HERE.bench.file, HERE.bench.panic):
        # objects are made
        assert (ROOT / path).exists() or path == "build", path
    for program in HERE.programs:
        assert (HERE.sources / f"{program.object}.bpf.c").is_file()


# -- which pytest configuration is named

CONFIGS = {
    "pytest.toml": "[pytest]\n",
    ".pytest.toml": "[pytest]\n",
    "pytest.ini": "[pytest]\n",
    ".pytest.ini": "",
    "pyproject.toml": "[tool.pytest.ini_options]\n",
    "tox.ini": "[pytest]\n",
    "setup.cfg": "[tool:pytest]\n",
}


@pytest.mark.parametrize("names", [(name,) for name in CONFIGS] + list(combinations(CONFIGS, 2)), ids="+".join)
def test_the_config_that_is_named_is_the_one_pytest_finds(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).write_text(CONFIGS[name])
    project = loaded(tmp_path)
    assert tmp_path / project.pytest_config == locate_config(tmp_path, [tmp_path])[1]


@pytest.mark.parametrize("name", ["pyproject.toml", "tox.ini", "setup.cfg"])
def test_a_file_that_says_nothing_of_pytest_is_not_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[other]\n")
    project = loaded(tmp_path)
    assert (project.pytest_config, project.pytest_options) == ("", ("-c", "/dev/null", "--rootdir=."))


# -- what is wrong in it

KEYS = (
    "images, compile, tests, objects, object, expect, scenario, capabilities, build, commands, kernels, guest, "
    "baselines, programs, loaders, loaders-on-request, carry, measure, reports, workflow, bench, mutants"
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('image = "x"\n', f"Object contains unknown field `image` (keys: {KEYS})"),
        ("images = 3\n", f"Expected `str | null`, got `int` - at `$.images` (keys: {KEYS})"),
        ('tests = "tests"\n', f"Expected `array | null`, got `str` - at `$.tests` (keys: {KEYS})"),
        ('tests = [""]\n', f"Expected `str` of length >= 1 - at `$.tests[0]` (keys: {KEYS})"),
        ('[compile]\nsource = "x"\n', f"Object contains unknown field `source` - at `$.compile` (keys: {KEYS})"),
        (
            "[compile.source-flags]\nx = 3\n",
            f"Expected `array`, got `int` - at `$.compile.source-flags[...]` (keys: {KEYS})",
        ),
        (
            '[[programs]]\nobject = "o"\nprogram = "p"\n',
            f"Object missing required field `type` - at `$.programs[0]` (keys: {KEYS})",
        ),
        ("[bench]\n", f"Object missing required field `file` - at `$.bench` (keys: {KEYS})"),
        ("[mutants]\n", f"Object missing required field `tests` - at `$.mutants` (keys: {KEYS})"),
        (
            '[mutants]\ntests.none = ["src"]\n[compile]\nsources = "src"\n',
            "mutants.tests: src/none.bpf.c: no such file or folder below {root}",
        ),
        (
            '[mutants]\ntests.p = ["none"]\n[compile]\nsources = "src"\n',
            "mutants.tests: none: no such file or folder below {root}",
        ),
        (
            '[mutants]\ntests.p = ["src"]\nmistakes = "none"\n[compile]\nsources = "src"\n',
            "mutants.mistakes: none: no such file or folder below {root}",
        ),
        ('images = "none"\n', "images: none: no such file or folder below {root}"),
        ('measure = ["a.py", "none.py"]\n', "measure: none.py: no such file or folder below {root}"),
        ('workflow = "none.j2"\n', "workflow: none.j2: no such file or folder below {root}"),
        ('[compile]\nsources = "none"\n', "compile.sources: none: no such file or folder below {root}"),
        (
            '[compile]\nsources = "src"\nsource-flags = { "none.bpf.c" = ["-DX"] }\n',
            "compile.source-flags: src/none.bpf.c: no such file or folder below {root}",
        ),
        ('tests = ["../tests"]\n', "tests: ../tests: not a path below the project"),
        ('tests = ["/"]\n', "tests: /: not a path below the project"),
        ('carry = ["a.py", "/etc/passwd"]\n', "carry: /etc/passwd: not a path below the project"),
        ('measure = ["../project/a.py"]\n', "measure: ../project/a.py: not a path below the project"),
        ('[compile]\nsources = "../src"\n', "compile.sources: ../src: not a path below the project"),
        (
            'loaders = ["libbpf", "gobpf"]\n',
            f"loaders: gobpf: no such loader (known: {', '.join(configuration.LOADERS)})",
        ),
        ('loaders = ["libbpf", "libbpf"]\n', "loaders: a loader is named twice"),
    ],
)
@pytest.mark.parametrize("name", [OWN, "pyproject.toml"])
def test_what_is_wrong_is_one_line_that_names_it(tmp_path: Path, name: str, text: str, line: str) -> None:
    root = tmp_path / "project"
    for folder in (root / "src", tmp_path / "src"):
        folder.mkdir(parents=True)
    (root / "a.py").touch()
    (root / "src" / "p.bpf.c").touch()
    where = name
    if name == "pyproject.toml":
        where = "pyproject.toml: [tool.kernel-matrix]"
        text = TABLE + text.replace("[[", "[[tool.kernel-matrix.").replace("\n[c", "\n[tool.kernel-matrix.c")
        for table in ("[compile", "[bench", "[mutants"):
            text = text.replace(table, f"[tool.kernel-matrix.{table[1:]}")
    with pytest.raises(ManifestError) as error:
        loaded(root, text, name)
    assert str(error.value) == f"{where}: {line.format(root=root)}"
    assert error.value.exit_status == 4


@pytest.mark.parametrize("content", [b"images = \n", b"\xff\xfe"])
@pytest.mark.parametrize("name", [OWN, "pyproject.toml"])
def test_what_is_no_toml_is_one_line_that_names_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ManifestError, match=rf"^{tmp_path / name}: [^\n]+$"):
        configuration.find(tmp_path)
