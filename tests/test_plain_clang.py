"""Compiling as loops in documentation do, ``clang -O2 -target bpf``: what it lacks, each with what mends it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.objects import build

BPF = Path(__file__).resolve().parents[1] / "bpf"
PROGRAMS = ["xdp_packet_counter", "kprobe_execve", "tracepoint_network"]


def _clang(name: str, target: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = ["clang", "-O2", "-target", "bpf", *flags, "-c", str(BPF / f"{name}.bpf.c"), "-o", str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _multiarch() -> list[str]:
    return [f"-idirafter{folder}" for folder in build._system_headers()]


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_the_multiarch_folder_a_header_is_missing(name: str, tmp_path: Path) -> None:
    done = _clang(name, tmp_path / "x.o")
    assert done.returncode != 0
    assert "'asm/types.h' file not found" in done.stderr


def test_without_debug_information_libbpf_refuses_the_object(tmp_path: Path) -> None:
    """BTF is made of it, and maps are declared in BTF."""
    assert _clang("xdp_packet_counter", tmp_path / "x.o", *_multiarch()).returncode == 0
    with pytest.raises(StepError, match=r"x\.o") as caught:
        steps.kinds(tmp_path / "x.o")
    assert caught.value.stage == "open"
    assert "BTF is required" in caught.value.log


@pytest.mark.parametrize("name", ["kprobe_execve", "tracepoint_network"])
def test_without_debug_information_clang_refuses_co_re(name: str, tmp_path: Path) -> None:
    """Relocations of fields are made of it, too."""
    done = _clang(name, tmp_path / "x.o", *_multiarch())
    assert done.returncode != 0
    assert "builtin_preserve_access_index() without -g" in done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_with_both_it_opens(name: str, tmp_path: Path) -> None:
    assert _clang(name, tmp_path / "x.o", "-g", *_multiarch()).returncode == 0
    assert steps.kinds(tmp_path / "x.o")
