"""A relay's job: the guest to boot, its payload, and its time limits. The relay reads it as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kernel_matrix.relay.payload import Payload
from kernel_matrix.vm.boot_spec import BootSpec


@dataclass(frozen=True, slots=True)
class Job:
    """The job of one relay: one guest, from its boot to its end."""

    #: the kernel's name in the manifest, with its variant
    kernel: str
    boot: BootSpec
    payload: Payload
    #: every boot of this kernel appends to it
    console: Path
    #: one file per guest that may run at the same time; a guest holds a lock on one of them
    slots: tuple[Path, ...]
    #: seconds from QEMU's start to the agent's greeting
    boot_timeout: float
    #: the virtme-ng command
    vng: Path
    #: seconds without a byte from the guest after which it counts as hung; None: scaled by its measured speed
    silence_timeout: float | None = None
    #: by what factor this kernel's own waits are longer than other kernels'; limits grow with it
    patience: float = 1.0
    #: the cache's folder of snapshots and this guest's key in it; None: it boots cold
    snapshot: tuple[Path, str] | None = None
    #: when its worker is saved and restored, too: "never"; "again": when the last run had the same one; "always"
    worker: Literal["never", "again", "always"] = "never"
    #: the kind of its worker; a guest keeps one saved worker of each kind
    worker_kind: str = ""
    #: arguments of a pytest that imports what all tests of the project share; empty: no guest is prepared
    rehearsal: tuple[str, ...] = ()
