"""Make a cgroup for a test."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def cgroup() -> Iterator[int]:
    """Make an empty cgroup; yield an fd of its folder, and remove it. Raises OSError without cgroup2."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    root = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    if root is None:
        raise OSError(errno.ENOENT, "no cgroup2 is mounted")
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        folder.rmdir()
