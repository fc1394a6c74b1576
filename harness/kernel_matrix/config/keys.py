"""Keys of the table whose values have a form of their own: commands, the guest's needs, capabilities."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import MEMORY_MIB, Command, GuestNeeds

Name = Annotated[str, msgspec.Meta(min_length=1)]
#: Debian policy, 5.6.7: names of packages; anything else would be more than a name to apt
_Package = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]
_Memory = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]*[MG]$")]
_MIB = {"M": 1, "G": 1024}
_PREFIX = "CAP_"
#: linux/capability.h, in its order
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip


class CommandTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """An entry of ``commands`` with a limit of its own, or one that is known to fail."""

    run: Name
    timeout: Annotated[float, msgspec.Meta(gt=0)] = Command("").timeout
    known_issue: str = ""
    known_issue_kernels: tuple[Name, ...] = ()


class Guest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[tool.kernel-matrix.guest]: what guests have beside what the engine gives to all."""

    packages: tuple[_Package, ...] = ()
    requirements: Name | None = None
    memory: _Memory | None = None


def commands(entries: Iterable[str | CommandTable], where: str) -> tuple[Command, ...]:
    """Return the commands of the table; raises ManifestError for one that is there twice, or fails without a reason."""
    all_commands = [
        Command(entry)
        if isinstance(entry, str)
        else Command(entry.run, entry.timeout, entry.known_issue, entry.known_issue_kernels)
        for entry in entries
    ]
    if unexplained := next((own.run for own in all_commands if own.known_issue_kernels and not own.known_issue), None):
        raise ManifestError(f"{where}: commands: {unexplained}: known-issue-kernels without known-issue, a reference")
    lines = [command.run for command in all_commands]
    if twice := next((line for line in lines if lines.count(line) > 1), None):
        raise ManifestError(f"{where}: commands: {twice}: is there twice")
    return tuple(all_commands)


def guest(table: Guest, root: Path, where: str) -> GuestNeeds:
    """Return what guests of a project need; raises ManifestError."""
    memory = MEMORY_MIB if table.memory is None else int(table.memory[:-1]) * _MIB[table.memory[-1]]
    if memory < MEMORY_MIB:
        raise ManifestError(f"{where}: guest.memory: {table.memory}: a guest needs {MEMORY_MIB}M at least")
    requirements = None if table.requirements is None else root / table.requirements
    if requirements is not None and not requirements.is_file():
        raise ManifestError(f"{where}: guest.requirements: {table.requirements}: no such file below {root}")
    return GuestNeeds(table.packages, requirements, memory)


def capabilities(names: Iterable[str] | None, where: str) -> tuple[str, ...] | None:
    """Return capabilities by their whole names, CAP_BPF for BPF; raises ManifestError for an unknown one."""
    if names is None:
        return None
    short = [name.removeprefix(_PREFIX) for name in names]
    for name in short:
        if name not in _CAPABILITIES:
            raise ManifestError(f"{where}: capabilities: {name}: no such capability (such as BPF, or CAP_BPF)")
    return tuple(f"{_PREFIX}{name}" for name in short)
