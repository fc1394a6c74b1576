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
from dataclasses import dataclass, field
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

#: groups that are installed where `--with` names them
OPTIONAL = frozenset({"aya", "cilium", "rust-bpf"})
#: what runs of the matrix need, in a project that only uses the engine
USERS = ("build", "matrix")


class BootstrapError(Exception):
    """A line that says why nothing can be installed."""


@dataclass(frozen=True, slots=True)
class Need:
    """A program or file that the machine must have."""

    #: a program's name, or a glob of files
    program: str | None
    files: tuple[str, ...]
    #: the groups of sessions that need it: build, matrix, tests, report, lint, and those of OPTIONAL
    groups: frozenset[str]
    #: family -> package, or several with spaces
    packages: Mapping[str, str]
    #: what compiles it, for a program that no family has: then `packages` is empty
    command: tuple[str, ...] = ()
    #: variables for that command
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The program, or the glob of files."""
        return self.program or self.files[0]

    def present(self) -> bool:
        """Whether the machine has it."""
        if self.program is not None:
            return shutil.which(self.program, path=_path()) is not None
        return any(any(Path("/").glob(pattern.lstrip("/"))) for pattern in self.files)


def _path() -> str:
    """Return where programs are looked for; cargo and pip install into folders that may be on no PATH."""
    cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "bin"
    return f"{os.environ.get('PATH', '')}:{_SBIN}:{cargo}:{Path.home() / '.local' / 'bin'}:/usr/local/go/bin"


def needs() -> tuple[Need, ...]:
    """Return the entries of the table."""
    entries = tomllib.loads(_TABLE.read_text())["need"]
    return tuple(
        Need(
            program=entry.get("program"),
            files=tuple(entry[key] for key in ("file", "or_file") if key in entry),
            groups=frozenset(entry["for"]),
            packages={family: entry[family] for family in _INSTALL if "command" not in entry},
            command=tuple(entry.get("command", ())),
            environment=entry.get("environment", {}),
        )
        for entry in entries
    )


def missing(groups: Iterable[str] | None = None) -> tuple[Need, ...]:
    """Return what the machine lacks that these groups need (None: all groups but the optional ones)."""
    selected = None if groups is None else frozenset(groups)
    return tuple(
        need
        for need in needs()
        if (need.groups - OPTIONAL if selected is None else need.groups & selected) and not need.present()
    )


def family(which: Callable[[str], str | None] = shutil.which) -> str:
    """Return the machine's package family; apt comes first, as a Debian machine may have dnf."""
    for name, manager in _MANAGERS.items():
        if which(manager) is not None:
            return name
    raise BootstrapError(f"no known package manager found ({', '.join(_MANAGERS.values())})")


def commands(lacking: Sequence[Need], manager: str, *, root: bool) -> list[list[str]]:
    """Return the commands that install what is missing; empty when nothing is. What is compiled comes last."""
    compiled = [_compile(need) for need in lacking if need.command]
    packages = list(
        dict.fromkeys(name for need in lacking if not need.command for name in need.packages[manager].split())
    )
    if not packages:
        return compiled
    prefix = [] if root else ["sudo"]
    *before, install = _INSTALL[manager]
    return [[*prefix, *command] for command in before] + [[*prefix, *install, *packages]] + compiled


def _compile(need: Need) -> list[str]:
    """Return the command that compiles a program, as a line that can be typed. It runs as the user."""
    variables = [f"{name}={value}" for name, value in need.environment.items()]
    return ["env", *variables, *need.command] if variables else [*need.command]


def explain(session: str, lacking: Sequence[Need], manager: str, command: str) -> str:
    """Return the error line of a session that lacks something; ``command`` installs it."""
    lines = ", ".join(f"{need.name} is missing ({_source(need, manager)})" for need in lacking)
    return f"{session}: {lines}: run `{command}`"


def _source(need: Need, manager: str) -> str:
    """Return where a need comes from, for a message."""
    return f"compiled with {need.command[0]}" if need.command else f"package {need.packages[manager]}"


#: the command's arguments, for its usage line
USAGE = "[--dry-run] [--with GROUP]..."
_OPTIONS = f"""options:
  --dry-run     only print the commands that would install what is missing
  --with GROUP  also install what these need: {", ".join(sorted(OPTIONAL))}"""


def _groups(arguments: Sequence[str]) -> tuple[str, ...] | None:
    """Return the optional groups that arguments name, None for arguments that are none of this command's."""
    groups = []
    words = iter(word for word in arguments if word != "--dry-run")
    for word in words:
        name, _, value = word.partition("=")
        group = value or next(words, "")
        if name != "--with" or group not in OPTIONAL:
            return None
        groups.append(group)
    return tuple(groups)


def _lacking(groups: Sequence[str], everywhere: Sequence[str] | None) -> tuple[Need, ...]:
    """Return what the machine lacks of these groups: what is needed everywhere, and the optional ones."""
    basic = missing() if everywhere is None else missing(everywhere)
    return basic + tuple(need for need in (missing(groups) if groups else ()) if need not in basic)


def main(arguments: Sequence[str], typed: str, everywhere: Sequence[str] | None = None) -> int:
    """Install what is missing; ``--dry-run`` prints how. ``typed`` is the usage line of the command.

    ``everywhere``: the groups that are installed without being named; None: all that sessions of this project need.
    """
    if (groups := _groups(arguments)) is None:
        help_requested = bool({"-h", "--help"} & set(arguments))
        print(f"usage: {typed}\n\n{_OPTIONS}", file=sys.stdout if help_requested else sys.stderr)
        return 0 if help_requested else 4
    try:
        lacking = _lacking(groups, everywhere)
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
    still = [] if "--dry-run" in arguments else _lacking(groups, everywhere)
    for need in still:
        print(f"bootstrap: {need.name} is still missing after the installation", file=sys.stderr)
    return 3 if still else 0
