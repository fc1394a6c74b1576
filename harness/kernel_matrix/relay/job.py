"""What one relay has to do: a guest to boot, what it gets, and the limits of its life. The relay reads it as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kernel_matrix.relay.payload import Payload
from kernel_matrix.vm.boot_spec import BootSpec


@dataclass(frozen=True, slots=True)
class Job:
    """One guest's life, from its boot on."""

    #: the kernel's name in the manifest, with its variant
    kernel: str
    boot: BootSpec
    payload: Payload
    #: appended to by every boot of this kernel
    console: Path
    #: one file per guest that may run at once; a guest holds a lock on one of them
    slots: tuple[Path, ...]
    #: seconds from QEMU's start to the guest's first word
    boot_timeout: float
    #: the virtme-ng command
    vng: Path
    #: seconds without a word from the guest after which it counts as hung; None: scaled by its measured speed
    silence_timeout: float | None = None
    #: how many times longer this kernel's own waits are than other kernels'; limits grow with it
    patience: float = 1.0
    #: the cache's folder of snapshots and this guest's key in it; None: it boots cold
    snapshot: tuple[Path, str] | None = None
    #: whether its worker is saved and restored, too: "never"; "again": where an earlier run has had the same; "always"
    worker: Literal["never", "again", "always"] = "never"
    #: a guest keeps one saved worker of each kind
    worker_kind: str = ""
    #: the words of a pytest that imports what all tests of the project share; empty: no guest is prepared for them
    rehearsal: tuple[str, ...] = ()
