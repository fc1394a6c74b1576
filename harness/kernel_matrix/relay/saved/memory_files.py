"""Memory files of saved guests. They are sparse; for a worker, only the pages that differ from its guest are kept.

A worker changes a sixth of its guest's memory, so a snapshot of it holds those pages instead of the whole memory. QEMU
maps the guest's file privately, and the pages are written into the QEMU process before the guest continues.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kernel_matrix.arch import CURRENT

#: bytes in which zeros and differences are searched for; a multiple of the guest's page
BLOCK = 1 << 16
_PAGE = CURRENT.page
#: one run of changed pages in the file ``places``: its start in the memory, and its length, both in bytes
_RUN = struct.Struct("<QQ")
#: the files of a worker: a sequence of `_RUN`, and their pages in the same order
CHANGES = ("places", "pages")


def dig_holes(path: Path) -> None:
    """Deallocate the blocks of a file that hold only zeros, a sixth of a guest's memory.

    Does nothing on a file system without holes; raises OSError for any other failure.
    """
    command = ["fallocate", "--dig-holes", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)
    # util-linux reports EOPNOTSUPP in two ways: "Operation not supported", "keep size mode is unsupported"
    if done.returncode and not re.search(r"not supported|unsupported", done.stderr):
        raise OSError(errno.EIO, done.stderr.strip(), str(path))


def blocks(descriptor: int, size: int) -> Iterator[int]:
    """Yield the starts of a sparse file's blocks that hold data."""
    start = 0
    while start < size:
        try:
            data = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: only a hole follows
                raise
            return
        start = max(start, data // BLOCK * BLOCK)
        yield start
        start += BLOCK


def keep_changes(base: Path, ram: Path, folder: Path) -> None:
    """Write the pages of ``ram`` that differ from ``base`` into the files `CHANGES` of a folder.

    Both have the same size.
    """
    with (folder / "places").open("wb") as places, (folder / "pages").open("wb") as pages:
        for start, changed in _runs(base, ram):
            places.write(_RUN.pack(start, len(changed)))
            pages.write(changed)


def write_changes(folder: Path, process: int, mapped: Path) -> None:
    """Write a worker's pages into a process that maps its guest's file; raises OSError.

    The kernel checks this as it checks ptrace(2) (proc_pid_mem(5)), and usually permits it to the user who started the
    process.
    """
    address = _address(process, mapped)
    places, pages = ((folder / name).read_bytes() for name in CHANGES)
    memory = os.open(f"/proc/{process}/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        at = 0
        for start, length in _RUN.iter_unpack(places):
            if os.pwrite(memory, memoryview(pages)[at : at + length], address + start) != length:
                raise OSError(errno.EIO, os.strerror(errno.EIO), f"/proc/{process}/mem")
            at += length
    finally:
        os.close(memory)


def apply_changes(folder: Path, ram: Path) -> None:
    """Write a worker's pages into a copy of its guest's memory file."""
    places, pages = ((folder / name).read_bytes() for name in CHANGES)
    with ram.open("r+b") as file:
        at = 0
        for start, length in _RUN.iter_unpack(places):
            file.seek(start)
            file.write(memoryview(pages)[at : at + length])
            at += length


def _runs(base: Path, ram: Path) -> Iterator[tuple[int, bytes]]:
    """Yield each run of adjacent pages of ``ram`` that differ from ``base``: its start and its pages."""
    with base.open("rb") as base_file, ram.open("rb") as ram_file:
        size = os.fstat(ram_file.fileno()).st_size
        starts = {*blocks(base_file.fileno(), size), *blocks(ram_file.fileno(), size)}
        begin, run = 0, bytearray()
        for block in sorted(starts):
            before = os.pread(base_file.fileno(), BLOCK, block).ljust(BLOCK, b"\0")
            now = os.pread(ram_file.fileno(), BLOCK, block)
            if before == now:
                continue
            for at in range(0, len(now), _PAGE):
                page = now[at : at + _PAGE]
                if page == before[at : at + len(page)]:
                    continue
                if begin + len(run) != block + at:
                    if run:
                        yield begin, bytes(run)
                    begin, run = block + at, bytearray()
                run += page
        if run:
            yield begin, bytes(run)


def _address(process: int, mapped: Path) -> int:
    """Return the address at which a process maps the start of a file (proc_pid_maps(5)); raises OSError."""
    path = os.path.realpath(mapped)
    with open(f"/proc/{process}/maps", encoding="utf-8", errors="surrogateescape") as maps:  # noqa: PTH123
        for line in maps:
            fields = line.rstrip("\n").split(maxsplit=5)
            if len(fields) == 6 and fields[5] == path and int(fields[2], 16) == 0:
                return int(fields[0].partition("-")[0], 16)
    raise OSError(errno.ENOENT, "not mapped", path)
