"""Extract the uncompressed kernel from a compressed one, so that its decompressor need not be emulated."""

from __future__ import annotations

import io
import lzma
import subprocess
import zlib

from kernel_matrix.arch import CURRENT
from kernel_matrix.shared import hints
from kernel_matrix.shared.errors import ImageError


def of(kernel: bytes) -> bytes | None:
    """Return the ELF file in a kernel's file; None when there is none, or it lacks the entry note for a loader."""
    payload = CURRENT.compressed_kernel(kernel)
    elf = None if payload is None else _decompressed(payload)
    return elf if elf is not None and has_entry(elf) else None


def _decompressed(payload: bytes) -> bytes | None:
    try:
        # the uncompressed size follows the stream (scripts/Makefile.lib, size_append)
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(payload)
        if payload.startswith(b"\x28\xb5\x2f\xfd"):
            command = ["zstd", "--decompress", "--quiet", "--stdout"]
            # the last four bytes, the size, are not part of the stream: zstd would report them as an error
            done = subprocess.run(command, input=payload[:-4], capture_output=True, check=False)
            return done.stdout if done.returncode == 0 else None
    except (lzma.LZMAError, zlib.error):
        return None
    except FileNotFoundError as error:
        raise ImageError(f"{error.filename} is missing: run `{hints.command('bootstrap')}`") from error
    return None


def has_entry(elf: bytes) -> bool:
    """Whether an ELF file has the note with which a loader can start it."""
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import NoteSegment

    try:
        segments = ELFFile(io.BytesIO(elf)).iter_segments("PT_NOTE")
        notes = [note for segment in segments if isinstance(segment, NoteSegment) for note in segment.iter_notes()]
    except (ELFError, ConstructError, OverflowError):  # raised for a damaged file
        return False
    # pyelftools replaces the numbers of known types by names
    return any((note["n_name"], str(note["n_type"])) == CURRENT.entry_note for note in notes)
