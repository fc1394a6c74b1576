"""Where the capability table's probes run, and what they inherit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from kernel_matrix.guest.bpf import bpf_calls, steps
from kernel_matrix.guest.bpf.struct_ops import StructOps
from kernel_matrix.shared.capability_table import ATTACH, BOTH, LOAD
from kernel_matrix.shared.project import Program

BPF_SYSCTL, PERF_SYSCTL = "unprivileged_bpf_disabled", "perf_event_paranoid"


@dataclass(frozen=True, slots=True)
class Given:
    """What every probing process inherits."""

    #: the programs that the project ships
    programs: tuple[Program, ...]
    loadables: Mapping[str, bpf_calls.Loadable]
    #: shipped object -> what it needs of maps
    shipped_maps: Mapping[str, tuple[steps.MapSpec, ...]]
    #: map type or shipped map -> fd
    maps: Mapping[str, int]
    map_id: int
    program_id: int
    cgroup: int
    #: a bpffs as distributions mount it, of root alone, and one for everybody
    private: Path
    public: Path
    tracepoint: int
    #: a library and an offset in it that nothing calls, and the address of a function of the kernel
    uprobe: tuple[Path, int]
    address: int
    struct_ops: StructOps


@dataclass(frozen=True, slots=True)
class Place:
    """Where a probe runs."""

    given: Given
    undo: ExitStack
    token: int | None = None
    #: an open bpffs that a token can be made of
    delegating: int | None = None

    #: programs for one try each, of types that need that
    unused: Mapping[str, list[int]] = field(default_factory=dict)
    #: what this process has loaded with the same set for another path, and what ends that
    own: dict[str, int] = field(default_factory=dict)
    kept: ExitStack = field(default_factory=ExitStack)

    def inherited(self, name: str) -> int:
        """Return the fd of a program that a privileged process has loaded."""
        return self.unused[name].pop() if name in self.unused else self.given.loadables[name].program.fd

    def load(self, name: str) -> int:
        """Load a program here and now."""
        return bpf_calls.load(self.given.loadables[name], self.undo, self.token)

    def loaded(self, name: str) -> int:
        """Return the fd of a program that this process loads with the same set: once for all paths."""
        if name not in self.own:
            self.own[name] = bpf_calls.load(self.given.loadables[name], self.kept, self.token)
        return self.own[name]


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that is tried."""

    #: what: a map or program type, a shipped program, ``bpf`` for commands that are of none
    subject: str
    #: which stage, and by which path
    stage: str
    run: Callable[[Place], object]
    #: the sysctls under whose every value it is tried
    sysctls: tuple[str, ...] = (BPF_SYSCTL,)
    #: whether it can use a token
    takes_token: bool = False
    #: whether it is of a shipped program, of which the minimal sets are wanted
    shipped: bool = False

    @property
    def name(self) -> str:
        """The entry's name in the table."""
        return f"{self.subject} {self.stage}"

    @property
    def composed(self) -> bool:
        """Whether it is two stages, each of which has a probe of its own."""
        return self.stage.startswith(f"{BOTH} ")

    @property
    def attaches(self) -> bool:
        """Whether it attaches what another process has loaded."""
        return self.stage.startswith(f"{ATTACH} ")

    @property
    def creates(self) -> bool:
        """Whether it makes a map or loads a program; the other bpf() commands are about what is there."""
        return self.stage in {"map_create", LOAD} or self.composed
