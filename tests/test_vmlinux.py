"""The kernel inside a bzImage."""

from __future__ import annotations

import gzip
import lzma
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.images import vmlinux
from kernel_matrix.shared.errors import ImageError


def elf(*notes: tuple[bytes, int]) -> bytes:
    """A 64-bit ELF file whose only segment holds these notes."""
    content = b"".join(
        struct.pack("<III", len(name), 4, kind) + name.ljust((len(name) + 3) // 4 * 4, b"\0") + b"desc"
        for name, kind in notes
    )
    # 64 bits, least significant byte first
    header = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<Q", 64)
    header = header.ljust(54, b"\0") + struct.pack("<HH", 56, 1)
    segment = struct.pack("<IIQQQQ", 4, 0, 64 + 56, 0, 0, len(content)).ljust(56, b"\0")
    return header.ljust(64, b"\0") + segment + content


def bzimage(payload: bytes) -> bytes:
    head = bytearray(3 * 512)
    head[0x1F1] = 2
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 16, len(payload))
    return bytes(head) + bytes(16) + payload + b"what follows"


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "--stdout", "--quiet"], input=data, capture_output=True, check=True).stdout


PVH = elf((b"GNU\0", 3), (b"Xen\0", 18))


@pytest.mark.parametrize("compress", [lzma.compress, gzip.compress, zstd])
def test_the_payload_is_found_whatever_compressed_it(compress: Callable[[bytes], bytes]) -> None:
    assert vmlinux.of(bzimage(compress(PVH) + struct.pack("<I", len(PVH)))) == PVH


def test_a_kernel_without_a_pvh_entry_stays_compressed() -> None:
    assert vmlinux.of(bzimage(lzma.compress(elf((b"Xen\0", 5), (b"GNU\0", 18))))) is None


@pytest.mark.parametrize(
    "payload", [b"", b"\x28\xb5\x2f\xfdgarbage", b"\xfd7zXZ\0garbage", b"\x1f\x8bgarbage", b"other"]
)
def test_what_cannot_be_decompressed_is_left_alone(payload: bytes) -> None:
    assert vmlinux.of(bzimage(payload)) is None
    assert vmlinux.of(payload) is None


def test_a_missing_tool_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed = bzimage(zstd(PVH) + struct.pack("<I", len(PVH)))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match=r"^zstd is missing: run `kernel-matrix bootstrap`$"):
        vmlinux.of(compressed)


@given(st.integers(0, len(PVH)), st.binary(max_size=64))
def test_a_damaged_elf_file_is_never_an_error(cut: int, more: bytes) -> None:
    """A damaged ELF file has an entry point or none; reading it never raises."""
    assert vmlinux.has_entry(PVH[:cut] + more) in {True, False}
