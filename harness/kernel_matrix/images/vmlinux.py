"""The kernel inside a bzImage, uncompressed: QEMU starts it through PVH, and no decompressor has to be emulated."""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib
from collections.abc import Iterator

from kernel_matrix.shared import hints
from kernel_matrix.shared.errors import ImageError

#: XEN_ELFNOTE_PHYS32_ENTRY (include/xen/interface/elfnote.h): where a PVH loader enters
_PVH_ENTRY = 18
_PT_NOTE = 4


def of(bzimage: bytes) -> bytes | None:
    """Return the ELF file in a bzImage; None when it cannot be had, or a loader cannot enter it through PVH.

    Documentation/arch/x86/boot.rst: the payload starts payload_offset bytes into the protected-mode code, which follows
    setup_sects + 1 sectors.
    """
    if bzimage[0x202:0x206] != b"HdrS":
        return None
    sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (sectors + 1) * 512 + offset
    kernel = _decompressed(bzimage[start : start + length])
    return kernel if kernel is not None and has_pvh_entry(kernel) else None


def _decompressed(payload: bytes) -> bytes | None:
    try:
        # what follows the stream is the uncompressed size (scripts/Makefile.lib, size_append)
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(payload)
        if payload.startswith(b"\x28\xb5\x2f\xfd"):
            command = ["zstd", "--decompress", "--quiet", "--stdout"]
            # the four bytes behind the stream are an error to it, after all of the stream has been written
            done = subprocess.run(command, input=payload[:-4], capture_output=True, check=False)
            return done.stdout if done.returncode == 0 else None
    except (lzma.LZMAError, zlib.error):
        return None
    except FileNotFoundError as error:
        raise ImageError(f"{error.filename} is missing: run `{hints.command('bootstrap')}`") from error
    return None


def has_pvh_entry(elf: bytes) -> bool:
    """Whether a 64-bit ELF file has the note that names its PVH entry."""
    return any(name == b"Xen\0" and kind == _PVH_ENTRY for name, kind in _notes(elf))


def _notes(elf: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield name and type of every note (elf(5)); nothing for what is no whole ELF file."""
    if elf[:5] != b"\x7fELF\x02" or len(elf) < 64:
        return
    (headers,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for number in range(count):
        at = headers + number * size
        if at + 56 > len(elf):
            return
        (kind,) = struct.unpack_from("<I", elf, at)
        start, _, _, length = struct.unpack_from("<QQQQ", elf, at + 8)
        if kind != _PT_NOTE:
            continue
        end = min(start + length, len(elf))
        while start + 12 <= end:
            name, description, note = struct.unpack_from("<III", elf, start)
            yield elf[start + 12 : start + 12 + name], note
            start += 12 + (name + 3) // 4 * 4 + (description + 3) // 4 * 4
