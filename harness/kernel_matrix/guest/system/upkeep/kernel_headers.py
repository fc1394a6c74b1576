"""The headers of the running kernel, on a disk of their own; only guests of runs that need them have it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from kernel_matrix.guest.system.mounts import mount
from kernel_matrix.shared.channel.protocol import HEADERS_DISK

#: on a tmpfs: the guest's root is read-only
_FOLDER = Path("/run/harness/headers")
# linux/mount.h
_MS_RDONLY = 1


def kernel_headers() -> Path:
    """Return the folder with ``include`` and ``arch``, and mount it first; raises OSError (ENODEV: no such disk)."""
    if not _FOLDER.is_mount():
        disk = _disk()
        _FOLDER.mkdir(parents=True, exist_ok=True)
        mount(disk, str(_FOLDER), "erofs", _MS_RDONLY)
    return _FOLDER


def _disk() -> str:
    for serial in sorted(Path("/sys/block").glob("vd*/serial")):
        if serial.read_text().rstrip("\n") == HEADERS_DISK:
            return f"/dev/{serial.parent.name}"
    raise OSError(errno.ENODEV, f"this guest has no disk {HEADERS_DISK}: {os.strerror(errno.ENODEV)}")
