"""actionlint's build: from the lock, once, and a failure is one line. Nothing is downloaded here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import actionlint
import pytest

from kernel_matrix.dev.bootstrap import BootstrapError

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"


def a_project(folder: Path) -> Path:
    (folder / "requirements").mkdir(parents=True)
    for name in ("go.txt", "go.mod", "go.sum"):
        shutil.copy(REQUIREMENTS / name, folder / "requirements")
    return folder


def test_every_module_of_the_lock_has_its_hashes() -> None:
    required = re.findall(r"^\t(\S+) (v\S+)", (REQUIREMENTS / "go.mod").read_text(), re.MULTILINE)
    sums = (REQUIREMENTS / "go.sum").read_text()
    assert "github.com/rhysd/actionlint" in dict(required)
    for name, version in required:
        assert f"{name} {version} h1:" in sums


def test_another_lock_is_another_program(tmp_path: Path) -> None:
    keys = {actionlint.key(REQUIREMENTS)}
    for name in ("go.txt", "go.mod", "go.sum"):
        requirements = a_project(tmp_path / name) / "requirements"
        assert actionlint.key(requirements) == actionlint.key(REQUIREMENTS)
        with (requirements / name).open("a") as file:
            file.write("\n")
        keys.add(actionlint.key(requirements))
    assert len(keys) == 4


def test_the_users_proxy_stays_and_what_else_go_is_told_does_not(tmp_path: Path) -> None:
    given = {
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
        "GOROOT": "/usr/lib/go",
        "GOBIN": "/bin",
        "A": "b",
    }
    variables = actionlint.environment(given, tmp_path)
    assert (variables["GOPROXY"], variables["A"]) == ("off", "b")
    assert not {"GOROOT", "GOBIN"} & set(variables)
    assert "-mod=readonly" in variables["GOFLAGS"]
    assert all(variables[name].startswith(str(tmp_path)) for name in ("GOPATH", "GOMODCACHE", "GOCACHE"))


def test_it_is_built_once_and_leaves_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if "-o" in command:
            Path(command[command.index("-o") + 1]).touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    program = actionlint.build(a_project(tmp_path), sys.executable, tmp_path / ".nox")
    assert [path.name for path in (tmp_path / ".nox").iterdir()] == [program.name]
    assert ["--require-hashes" in command for command in commands] == [True, False]
    assert actionlint.build(tmp_path, sys.executable, tmp_path / ".nox") == program
    assert len(commands) == 2


def test_a_failure_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    """The line says what the tool needs."""
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\necho noise\necho 'no route to the registry' >&2\nexit 1\n")
    pip.chmod(0o755)
    expected = (
        r"^actionlint cannot be built \(no route to the registry\): "
        r"this needs PyPI and a Go module proxy \(GOPROXY\) once$"
    )
    with pytest.raises(BootstrapError, match=expected):
        actionlint.build(a_project(tmp_path), str(pip), tmp_path / ".nox")
    assert list((tmp_path / ".nox").iterdir()) == []
    with pytest.raises(BootstrapError, match=r"^actionlint cannot be built: /no/python: No such file or directory$"):
        actionlint.build(tmp_path, "/no/python", tmp_path / ".nox")
