"""The engine knows nothing of the first project that uses it: no name, path or command of it is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kernel_matrix
from tests.projects import HERE

PACKAGE = Path(kernel_matrix.__file__).parent
#: this repository's kernels and image, as the engine's own defaults
DEFAULTS = PACKAGE / "defaults"

_OWN = {
    "the project": r"(?i:hypermesh)",
    "its programs": r"xdp_packet_counter|kprobe_execve|tracepoint_network|trace_execve|trace_connect_enter",
    "its tests": r"""\bsuites/|["'`]suites["'`]|\bthe suites\b""",
    "its images": r"vmimages",
    "its fixtures": r"bpf/fixtures",
    "its baselines": r"\bbaselines/",
    "its commands": r"\bnox -s\b|\.nox\b|noxfile",
}
#: (file, line) where the words mean something else
_MEANT = {
    # how commands are named to whoever types them through nox
    (
        "shared/hints.py",
        '    """Return the command with its words, such as ``kernel-matrix shell 6.1`` or ``nox -s shell -- 6.1``."""',
    ),
    ("shared/hints.py", '        session = f"nox -s {_session(name)}"'),
    ("shared/hints.py", "#: set by a noxfile whose sessions stand for the commands"),
}


def lines() -> list[tuple[str, str]]:
    """Return (file, line) of every text file of the engine."""
    pairs = []
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_dir() or path.is_relative_to(DEFAULTS) or "__pycache__" in path.parts:
            continue
        pairs += [(str(path.relative_to(PACKAGE)), line) for line in path.read_text("utf-8").splitlines()]
    return pairs


LINES = lines()


def test_all_of_the_engine_is_read() -> None:
    files = {file for file, _ in LINES}
    assert {
        "__main__.py",
        "dev/packages.toml",
        "report/page/page.html.j2",
        "guest/agent.py",
        "relay/tools/qemu-img",
        "relay/tools/strings",
    } <= files
    assert set(_MEANT) <= set(LINES)


@pytest.mark.parametrize("what", _OWN)
def test_nothing_of_this_repository_is_in_the_engine(what: str) -> None:
    pattern = re.compile(_OWN[what])
    assert [pair for pair in LINES if pattern.search(pair[1]) and pair not in _MEANT] == []


def test_no_file_of_the_engine_is_named_for_this_repository() -> None:
    pattern = re.compile("|".join(_OWN.values()))
    assert [file for file, _ in LINES if pattern.search(file)] == []


def test_all_programs_of_this_repository_are_looked_for() -> None:
    """One that is added here is looked for in the engine, too."""
    pattern = re.compile(_OWN["its programs"])
    for program in HERE.programs:
        assert pattern.fullmatch(program.object)
        assert pattern.fullmatch(program.program)
    assert HERE.sources is not None
    assert all(pattern.fullmatch(path.name.removesuffix(".bpf.c")) for path in HERE.sources.glob("*.bpf.c"))


def test_folders_that_are_configured_are_looked_for() -> None:
    pattern = re.compile("|".join(_OWN.values()))
    for path in (*HERE.tests, HERE.baselines.name):
        assert pattern.search(f"in {path}/x")
    assert pattern.search(HERE.images.name)
