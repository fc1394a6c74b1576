"""Objects that libbpf refuses to open or to load, and why: the file, its byte order, its BTF, the kernel's BTF."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.pytest.marks import refused_without
from kernel_matrix.guest.pytest.refusal import Refused
from kernel_matrix.guest.system.mounts import without
from kernel_matrix.shared.errors import LIBBPF_ERRORS

# enum libbpf_errno of libbpf's libbpf.h
_LIBELF, _FORMAT, _, _ENDIAN = sorted(LIBBPF_ERRORS)[:4]

_RIGHT = steps.object_path("xdp_packet_counter")


def _open(path: Path) -> None:
    """Open the object and load it; whichever of the two refuses the file raises."""
    with steps.loaded(path):
        pass


@pytest.mark.parametrize(
    ("content", "refused_errno"),
    [
        # bpf_object__elf_init(): elf_begin() makes of it a file that is no ELF
        (b"not an ELF\n", _FORMAT),
        (_RIGHT.read_bytes()[:64] if _RIGHT.exists() else b"", _FORMAT),
    ],
    ids=["text", "cut off"],
)
def test_a_file_that_is_no_object(refused: Refused, tmp_path: Path, content: bytes, refused_errno: int) -> None:
    """Not the kernel: libbpf has errnos of its own: LIBBPF_ERRNO__FORMAT."""
    path = tmp_path / "wrong.bpf.o"
    path.write_bytes(content)
    with refused(refused_errno, stage="open"):
        _open(path)
    _open(_RIGHT)


def test_no_file(refused: Refused, tmp_path: Path) -> None:
    """open(): ENOENT."""
    with refused(errno.ENOENT, stage="open"):
        _open(tmp_path / "missing.bpf.o")
    _open(_RIGHT)


def test_the_other_byte_order(refused: Refused) -> None:
    """LIBBPF_ERRNO__ENDIAN, at load: since libbpf 1.6 such an object may be opened, to make a light skeleton of it.

    Which stage it is depends on libbpf, of which every guest has the same.
    """
    with refused(_ENDIAN, stage="load"):
        _open(steps.object_path("fixtures/big_endian"))
    _open(_RIGHT)


def test_an_object_without_btf(refused: Refused, tmp_path: Path) -> None:
    """bpf_object__init_btf(): maps of the section .maps are described by BTF alone, so without it: ENOENT."""
    path = tmp_path / "stripped.bpf.o"
    path.write_bytes(_RIGHT.read_bytes().replace(b".BTF", b".XYZ"))
    with refused(errno.ENOENT, stage="open") as refusal:
        _open(path)
    assert "BTF is required, but is missing or corrupted" in refusal.log
    _open(_RIGHT)


_CORE = steps.object_path("fixtures/core")


def _load(program: str) -> None:
    with steps.loaded(_CORE, program):
        pass


def test_a_field_that_this_kernel_has_not(refused: Refused) -> None:
    """bpf_core_poison_insn() leaves a call of no helper behind, which the verifier refuses: EINVAL."""
    with refused(errno.EINVAL, stage="load") as refusal:
        _load("core_missing")
    assert "task_struct___none" in refusal.log
    _load("core_pid")
    # asked with bpf_core_field_exists() first, the same is dead code
    _load("core_missing_but_asked")


@refused_without("task_state_renamed", errno.EINVAL, stage="load")
def test_a_field_that_other_kernels_have() -> None:
    """task_struct.__state was called state before 5.14."""
    _load("core_state")


def test_a_kernel_without_btf(refused: Refused) -> None:
    """bpf_object__load_vmlinux_btf() finds none anywhere: ESRCH for whatever needs it, nothing for the rest."""
    hidden = "/sys/kernel/btf"
    with refused(errno.ESRCH, stage="load"):
        without(hidden, do=lambda: _load("core_pid"))
    without(hidden, do=lambda: _open(_RIGHT))
    _load("core_pid")
