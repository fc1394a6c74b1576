"""Get Debian packages with apt's own tools and a private state per suite, without root, verified by signatures.

apt verifies Release against the archive keyring, the index against Release and each package against the index; the
lock's sha256 is checked in addition.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.arch import CURRENT
from kernel_matrix.images.cache import disk_errors, locked, run
from kernel_matrix.images.packages import mirror
from kernel_matrix.shared import hints
from kernel_matrix.shared.errors import ImageError

_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)


@dataclass(frozen=True, slots=True)
class Package:
    """One package file of the archive."""

    name: str
    version: str
    sha256: str
    #: bytes of the .deb
    size: int
    depends: str = ""


def keyring() -> Path:
    """Return the keyring of the Debian archive."""
    for path in _KEYRINGS:
        if path.exists():
            return path
    raise ImageError(f"the Debian archive's keyring is missing: run `{hints.command('bootstrap')}`")


class Suite:
    """One suite of the archive, with its own apt state in the cache."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._refreshed = False

    def _options(self, folder: Path) -> list[str]:
        state = folder / "apt" / self.name
        return [
            f"-oDir::Etc::sourcelist={state}/sources.list",
            "-oDir::Etc::sourceparts=/dev/null",
            "-oDir::Etc::preferencesparts=/dev/null",
            f"-oDir::State={state}/state",
            f"-oDir::State::lists={state}/lists",
            "-oDir::State::status=/dev/null",
            f"-oDir::Cache={state}/cache",
            f"-oAPT::Architecture={CURRENT.debian}",
            f"-oAPT::Architectures={CURRENT.debian}",
            "-oAPT::Sandbox::User=",
            "-oAcquire::Languages=none",
            "-oAcquire::Retries=2",
            # without this, apt-get update succeeds with old or missing lists
            "-oAPT::Update::Error-Mode=any",
        ]

    def _refresh(self) -> None:
        """Fetch the suite's index, once per process."""
        if self._refreshed:
            return
        with locked(f"apt-{self.name}") as folder:
            state = folder / "apt" / self.name
            uri = mirror.find().uri(self.name)
            with disk_errors(state):
                for part in ("state", "lists/partial", "cache/archives/partial"):
                    (state / part).mkdir(parents=True, exist_ok=True)
                options = f"arch={CURRENT.debian} signed-by={keyring()}"
                (state / "sources.list").write_text(f"deb [{options}] {uri} {self.name} main\n")
            run(["apt-get", *self._options(folder), "-qq", "update"], f"reading the index of {self.name}")
        self._refreshed = True

    def packages(self, pattern: str) -> tuple[Package, ...]:
        """Return the packages whose whole name matches the regular expression."""
        self._refresh()
        with locked(f"apt-{self.name}") as folder:
            names = run(["apt-cache", *self._options(folder), "pkgnames", "linux-"], f"searching {self.name}").split()
            if not names:
                # every suite has kernels: the mirror's index is still incomplete
                raise ImageError(f"the index of {self.name} names no kernel at all: is the mirror being synchronised?")
            matching = sorted(name for name in names if re.fullmatch(pattern, name))
            if not matching:
                return ()
            return self._shown(folder, matching)

    def named(self, names: Sequence[str]) -> tuple[Package, ...]:
        """Return the newest packages of these names, in their order; raises ImageError when one is missing."""
        self._refresh()
        with locked(f"apt-{self.name}") as folder:
            packages = {package.name: package for package in self._shown(folder, names)}
        if missing := [name for name in names if name not in packages]:
            raise ImageError(f"{self.name} has no package {', '.join(missing)}")
        return tuple(packages[name] for name in names)

    def _shown(self, folder: Path, names: Sequence[str]) -> tuple[Package, ...]:
        command = ["apt-cache", *self._options(folder), "--no-all-versions", "show", *names]
        return parse_packages(run(command, f"searching {self.name}"))

    def download(self, packages: Sequence[Package], into: Path) -> None:
        """Download these packages and verify them; raises ImageError, and leaves what is wrong to the caller."""
        self._refresh()
        with locked(f"apt-{self.name}") as folder:
            command = [
                "apt-get",
                *self._options(folder),
                "-oAPT::Status-Fd=1",
                "-qq",
                "download",
                *[f"{package.name}={package.version}" for package in packages],
            ]
            _download(command, packages, into)
        for package in packages:
            verify(find_deb(into, package), package)


def parse_packages(text: str) -> tuple[Package, ...]:
    """Read the stanzas of ``apt-cache show``."""
    from debian.deb822 import Deb822

    return tuple(
        Package(
            name=fields["Package"],
            version=fields["Version"],
            sha256=fields["SHA256"],
            size=int(fields["Size"]),
            depends=fields.get("Depends", ""),
        )
        for fields in Deb822.iter_paragraphs(text.splitlines())
        if "Package" in fields
    )


def find_deb(folder: Path, package: Package) -> Path:
    """Return the downloaded file of a package."""
    for path in folder.glob(f"{package.name}_*.deb"):
        return path
    raise ImageError(f"{package.name} {package.version} was not downloaded")


def verify(path: Path, package: Package) -> None:
    """Compare a file with the package's sha256; delete it and raise ImageError if they differ."""
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != package.sha256:
        path.unlink()
        raise ImageError(f"{package.name} {package.version}: the download is corrupt (sha256 {actual[:12]}...)")


def _download(command: list[str], packages: Sequence[Package], into: Path) -> None:
    # a run whose kernels are in the cache does not import it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    total = sum(package.size for package in packages)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    label = packages[0].name
    if not sys.stderr.isatty():
        print(f"downloading {label} ({total / 1e6:.0f} MB)", file=sys.stderr)
    with (
        tempfile.TemporaryFile("w+") as errors,
        Progress(*columns, transient=True, disable=not sys.stderr.isatty()) as progress,
        subprocess.Popen(
            command, cwd=into, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "LC_ALL": "C"}
        ) as process,
    ):
        task = progress.add_task(label, total=total)
        assert process.stdout is not None
        for line in process.stdout:
            # dlstatus:NUMBER:PERCENT:TEXT
            if line.startswith("dlstatus:"):
                progress.update(task, completed=total * float(line.split(":")[2]) / 100)
        if process.wait() != 0:
            errors.seek(0)
            lines = [line.strip() for line in errors if line.startswith(("E:", "W:"))] or ["no message"]
            raise ImageError(f"downloading {label} failed: {lines[0]}")
