"""The kernel inside a bzImage, uncompressed: QEMU starts it through PVH, and no decompressor has to be emulated."""

from __future__ import annotations

import io
import lzma
import struct
import subprocess
import zlib

from kernel_matrix.shared import hints
from kernel_matrix.shared.errors import ImageError

#: name and type of XEN_ELFNOTE_PHYS32_ENTRY (include/xen/interface/elfnote.h): where a PVH loader enters
_PVH_ENTRY = ("Xen", "18")


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
    """Whether an ELF file has the note that names its PVH entry."""
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import NoteSegment

    try:
        segments = ELFFile(io.BytesIO(elf)).iter_segments("PT_NOTE")
        notes = [note for segment in segments if isinstance(segment, NoteSegment) for note in segment.iter_notes()]
    except (ELFError, ConstructError, OverflowError):  # what it raises of a damaged file
        return False
    # a type that it has a name for is a word
    return any((note["n_name"], str(note["n_type"])) == _PVH_ENTRY for note in notes)
