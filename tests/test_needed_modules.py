"""The modules that an object's functions need: those that define what the kernel itself has not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.diagnosis import kernel_names
from kernel_matrix.guest.bpf.foreign import modules
from kernel_matrix.shared.bpf.bpf_elf import BpfFile
from kernel_matrix.shared.bpf.object_table import ObjectSettings


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two modules: one defines a function and a tracepoint that the other one only uses."""
    monkeypatch.setattr(modules, "_MODULES", tmp_path)
    folder = tmp_path / os.uname().release / "kernel"
    folder.mkdir(parents=True)
    for name, code in {
        "has-it": "int in_module(void) { return 1; } int __tracepoint_event;",
        "uses_it": "int in_module(void); int other(void) { return in_module(); }",
    }.items():
        command = ["clang", "-c", "-x", "c", "-", "-o", str(folder / f"{name}.ko")]
        subprocess.run(command, input=code.encode(), check=True)
    return tmp_path


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Types of a kernel that has one function and one tracepoint."""
    types = tmp_path / "types"
    types.write_bytes(b"\0own\0btf_trace_own\0")
    monkeypatch.setattr(kernel_names, "_BTF", types)
    kernel_names._types.cache_clear()
    yield
    kernel_names._types.cache_clear()


def _needed(**sections: str) -> tuple[str, ...]:
    return modules.needed(BpfFile(sections), ObjectSettings())


@pytest.mark.usefixtures("tree", "kernel")
@pytest.mark.parametrize(
    ("section", "needed"),
    [
        ("kprobe/in_module", ("has_it",)),
        ("kretprobe/in_module+0x4", ("has_it",)),
        ("?fentry.s/in_module", ("has_it",)),
        ("tracepoint/system/event", ("has_it",)),
        ("raw_tp/event", ("has_it",)),
        ("kprobe/own", ()),
        ("tp_btf/own", ()),
        ("kprobe/nowhere", ()),
        ("tracepoint/syscalls/event", ()),
        ("kprobe", ()),
        ("xdp", ()),
    ],
)
def test_what_a_section_names_is_looked_up(section: str, needed: tuple[str, ...]) -> None:
    assert _needed(f=section) == needed


@pytest.mark.usefixtures("tree", "kernel")
def test_externs_and_targets_of_the_table_count_too() -> None:
    assert modules.needed(BpfFile(externs=frozenset({"in_module", "CONFIG_HZ"})), ObjectSettings()) == ("has_it",)
    settings = ObjectSettings(targets={"f": "in_module"})
    assert modules.needed(BpfFile({"f": "kprobe"}), settings) == ("has_it",)


@pytest.mark.usefixtures("tree")
def test_nothing_is_loaded_where_no_types_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_names, "_BTF", tmp_path / "none")
    assert _needed(f="kprobe/in_module") == ()
