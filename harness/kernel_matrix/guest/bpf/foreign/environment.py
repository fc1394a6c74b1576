"""What a distribution's machine has for objects, and a guest has not: bpffs, the kernel's configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel_matrix.guest.system.mounts import BPFFS, mount, unmount
from kernel_matrix.shared.project import HOME, KERNEL_CONFIG

_BOOT = Path("/boot")


@contextmanager
def bpffs() -> Iterator[Path]:
    """Mount bpffs where it is missing; yield an empty folder there, which is removed at the end."""
    mounted = not BPFFS.is_mount()
    if mounted:
        mount("none", str(BPFFS), "bpf")
    folder = BPFFS / f"kernel-matrix-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        folder.rmdir()
        if mounted:
            unmount(str(BPFFS))


def show_configuration() -> None:
    """Let /boot/config-RELEASE be there, where libbpf and tools look for it, if the guest has got it."""
    path, brought = _BOOT / f"config-{os.uname().release}", HOME / KERNEL_CONFIG
    if path.exists() or not brought.exists():
        return
    mount("boot", str(_BOOT), "tmpfs")
    path.write_bytes(brought.read_bytes())
