"""The programs that the machine must have, and the command that installs the missing ones.

This uses the standard library only, as it runs before anything is installed. The table is packages.toml.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).with_name("packages.toml")
#: folders of system tools that a user's PATH may lack
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

#: family -> the commands before the packages' names
_INSTALL: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "apt": (
        ("apt-get", "update"),
        ("apt-get", "install", "--yes", "--no-install-recommends"),
    ),
    "dnf": (("dnf", "install", "--assumeyes"),),
    "pacman": (("pacman", "--sync", "--refresh", "--needed", "--noconfirm"),),
}
_MANAGERS = {"apt": "apt-get", "dnf": "dnf", "pacman": "pacman"}


class BootstrapError(Exception):
    """A line that says why nothing can be installed."""


@dataclass(frozen=True, slots=True)
class Need:
    """A program or file that the machine must have."""

    #: a program's name, or a glob of files
    program: str | None
    files: tuple[str, ...]
    #: the groups of sessions that need it: build, matrix, tests, report, lint
    groups: frozenset[str]
    #: family -> package
    packages: Mapping[str, str]

    @property
    def name(self) -> str:
        """The program, or the glob of files."""
        return self.program or self.files[0]

    def present(self) -> bool:
        """Whether the machine has it."""
        if self.program is not None:
            return shutil.which(self.program, path=f"{os.environ.get('PATH', '')}:{_SBIN}") is not None
        return any(any(Path("/").glob(pattern.lstrip("/"))) for pattern in self.files)


def needs() -> tuple[Need, ...]:
    """Return the entries of the table."""
    entries = tomllib.loads(_TABLE.read_text())["need"]
    return tuple(
        Need(
            program=entry.get("program"),
            files=tuple(entry[key] for key in ("file", "or_file") if key in entry),
            groups=frozenset(entry["for"]),
            packages={family: entry[family] for family in _INSTALL},
        )
        for entry in entries
    )


def missing(groups: Iterable[str] | None = None) -> tuple[Need, ...]:
    """Return what the machine lacks that these groups need (None: all groups)."""
    selected = None if groups is None else frozenset(groups)
    return tuple(need for need in needs() if (selected is None or need.groups & selected) and not need.present())


def family(which: Callable[[str], str | None] = shutil.which) -> str:
    """Return the machine's package family; apt comes first, as a Debian machine may have dnf."""
    for name, manager in _MANAGERS.items():
        if which(manager) is not None:
            return name
    raise BootstrapError(f"no known package manager found ({', '.join(_MANAGERS.values())})")


def commands(lacking: Sequence[Need], manager: str, *, root: bool) -> list[list[str]]:
    """Return the commands that install what is missing; empty when nothing is."""
    if not lacking:
        return []
    packages = list(dict.fromkeys(need.packages[manager] for need in lacking))
    prefix = [] if root else ["sudo"]
    *before, install = _INSTALL[manager]
    return [[*prefix, *command] for command in before] + [[*prefix, *install, *packages]]


def explain(session: str, lacking: Sequence[Need], manager: str, command: str) -> str:
    """Return the error line of a session that lacks something; ``command`` installs it."""
    lines = ", ".join(f"{need.name} is missing (package {need.packages[manager]})" for need in lacking)
    return f"{session}: {lines}: run `{command}`"


_OPTIONS = """options:
  --dry-run  only print the commands that would install what is missing"""


def main(arguments: Sequence[str], typed: str) -> int:
    """Install what is missing; ``--dry-run`` prints how. ``typed`` is the usage line of the command."""
    if set(arguments) - {"--dry-run"}:
        help_requested = bool({"-h", "--help"} & set(arguments))
        print(f"usage: {typed}\n\n{_OPTIONS}", file=sys.stdout if help_requested else sys.stderr)
        return 0 if help_requested else 4
    try:
        lacking = missing()
        if not lacking:
            print("bootstrap: nothing is missing")
            return 0
        todo = commands(lacking, family(), root=os.geteuid() == 0)
    except BootstrapError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 3
    for need in lacking:
        print(f"bootstrap: {need.name} is missing")
    if os.geteuid() != 0 and shutil.which("sudo") is None and "--dry-run" not in arguments:
        print("bootstrap: not root and no sudo: run as root", file=sys.stderr)
        return 3
    for command in todo:
        print(f"bootstrap: {shlex.join(command)}", flush=True)
        if "--dry-run" in arguments:
            continue
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run(command, env=environment, check=False).returncode != 0:
            print(f"bootstrap: failed: {shlex.join(command)}", file=sys.stderr)
            return 3
    still = [] if "--dry-run" in arguments else missing()
    for need in still:
        print(f"bootstrap: {need.name} is still missing after the installation", file=sys.stderr)
    return 3 if still else 0
