"""The probes of the capability table, the place where they run, and the resources that they inherit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls import bpf_calls
from kernel_matrix.guest.bpf.calls.struct_ops import StructOps
from kernel_matrix.guest.bpf.undo import Calls, Undo
from kernel_matrix.shared.outcomes.capability_table import ATTACH, BOTH, LOAD
from kernel_matrix.shared.project import Program

BPF_SYSCTL, PERF_SYSCTL = "unprivileged_bpf_disabled", "perf_event_paranoid"


@dataclass(frozen=True, slots=True)
class Resources:
    """What every probing process inherits from a privileged one."""

    #: the programs that the project ships
    programs: tuple[Program, ...]
    loadables: Mapping[str, bpf_calls.Loadable]
    #: shipped object -> the maps that it creates
    shipped_maps: Mapping[str, tuple[steps.MapSpec, ...]]
    #: map type or shipped map -> fd
    maps: Mapping[str, int]
    map_id: int
    program_id: int
    cgroup: int
    #: a bpffs as distributions mount it, for root alone, and one for all users
    private: Path
    public: Path
    tracepoint: int
    #: a library and the offset of a function in it that nothing calls; the address of a kernel function
    uprobe: tuple[Path, int]
    address: int
    struct_ops: StructOps
    #: programs for one attachment each, for types that can be attached only once
    unused: Mapping[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """What a probe has when it runs with one set: the resources, a token, and what undoes its step."""

    resources: Resources
    undo: Undo
    token: int | None = None
    #: an open bpffs from which a token can be created
    delegating: int | None = None
    #: programs that this process has loaded with the same set for another path, and the stack that closes them
    own: dict[str, int] = field(default_factory=dict)
    kept: Undo = field(default_factory=Calls)

    def inherited(self, name: str) -> int:
        """Return the fd of a program that the privileged process has loaded."""
        unused = self.resources.unused
        return unused[name].pop() if name in unused else self.resources.loadables[name].fd

    def load(self, name: str) -> int:
        """Load a program; `undo` closes it."""
        return bpf_calls.load(self.resources.loadables[name], self.undo, self.token)

    def loaded(self, name: str) -> int:
        """Return the fd of a program that this process loads itself, once for all paths with the same set."""
        if name not in self.own:
            self.own[name] = bpf_calls.load(self.resources.loadables[name], self.kept, self.token)
        return self.own[name]


@dataclass(frozen=True, slots=True)
class Probe:
    """A step that is tried with sets of capabilities: one entry of the table."""

    #: a map or program type, a shipped program, or ``bpf`` for commands without one
    subject: str
    #: the stage and the path
    stage: str
    run: Callable[[Place], object]
    #: the sysctls under whose values it is tried
    sysctls: tuple[str, ...] = (BPF_SYSCTL,)
    #: whether it can use a token
    takes_token: bool = False
    #: whether its subject is a shipped program, for which the table has minimal sets
    shipped: bool = False

    @property
    def name(self) -> str:
        """The entry's name in the table."""
        return f"{self.subject} {self.stage}"

    @property
    def composed(self) -> bool:
        """Whether it consists of two stages, each of which has its own probe."""
        return self.stage.startswith(f"{BOTH} ")

    @property
    def attaches(self) -> bool:
        """Whether it attaches a program that another process has loaded."""
        return self.stage.startswith(f"{ATTACH} ")

    @property
    def creates(self) -> bool:
        """Whether it creates a map or loads a program; other bpf() commands use existing objects."""
        return self.stage in {"map_create", LOAD} or self.composed
