"""What resembles a name that the kernel lacks: hooks and tracepoints from its types, events from tracefs."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.diagnosis import kernel_names, machine
from kernel_matrix.guest.bpf.step_error import StepError


@pytest.fixture(autouse=True)
def types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"\0bpf_lsm_file_open\0btf_trace_sched_switch\0bpf_iter_task\0file_open\0")
    monkeypatch.setattr(kernel_names, "_BTF", path)
    kernel_names._types.cache_clear()
    yield
    kernel_names._types.cache_clear()


@pytest.mark.parametrize(
    ("section", "near"),
    [
        ("lsm.s/file_opn", ("file_open",)),
        ("tp_btf/sched_swich", ("sched_switch",)),
        ("iter/tsk", ("task",)),
        # any function may be meant, of 100,000
        ("fentry/file_opn", ()),
        ("tp_btf/file_opn", ()),
    ],
)
def test_a_missing_hook_is_looked_up_by_what_is_like_it(section: str, near: tuple[str, ...]) -> None:
    name = section.partition("/")[2]
    error = StepError(errno.ESRCH, "load", "x", f"libbpf: failed to find kernel BTF type ID of '{name}': -3\n")
    error.section = section
    assert kernel_names.near("load", "", "x", error) == near


@pytest.mark.parametrize(
    ("relocation", "near"),
    [
        ("<byte_off> [5] struct task_struct___old.state (0:0 @ offset 0)", ("__state",)),
        ("<byte_off> [5] struct task_struct.exit_cod.x (0:0 @ offset 0)", ("exit_code",)),
        ("<byte_off> [5] struct gone.state (0:0 @ offset 0)", ()),
        ("<enumval_value> [5] enum e::A = 1", ()),
    ],
)
def test_a_missing_field_is_looked_up_in_its_struct(
    relocation: str, near: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"task_struct": ("__state", "exit_code")}
    monkeypatch.setattr(kernel_names, "_members", lambda struct: members.get(struct, ()))
    log = f"<invalid CO-RE relocation>\nfailed to resolve CO-RE relocation {relocation}\n"
    assert kernel_names.near("load", "", "x", StepError(errno.EINVAL, "load", "x", log)) == near


def test_a_raw_tracepoint_is_looked_up_without_its_category(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_names, "_tracepoints", lambda: ["sched:sched_switch", "net:netif_rx"])
    error = StepError(errno.ENOENT, "attach", "f")
    error.section = "raw_tp/sched_swich"
    assert kernel_names.near("attach", "", "f", error) == ("sched_switch",)


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("finish_task_switch", ("finish_task_switch.isra.0",)),
        ("sys_nanosleep", ("__x64_sys_nanosleep", "__ia32_sys_nanosleep")),
        ("in_module", ("in_module",)),
        ("task_switch", ()),
        ("gone", ()),
        # a macro calls it since memory is accounted by call sites; the others are data, or programs of BPF
        ("cache_alloc", ("cache_alloc_noprof",)),
        ("cache_free", ()),
        ("of_a_program", ()),
        # what merely ends in it is another function
        ("func", ()),
        ("execve", ("__x64_sys_execve", "do_execve")),
    ],
)
def test_functions_of_a_like_name_are_copies_and_entries(
    name: str, similar: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        "T __x64_sys_nanosleep",
        "T __ia32_sys_nanosleep",
        "T __pfx___x64_sys_nanosleep",
        "t finish_task_switch.isra.0",
        "t __pfx_finish_task_switch.isra.0",
        "t in_module\t[module]",
        "T cache_alloc_noprof",
        "T cache_alloc_node",
        "d event_cache_alloc",
        "r cache_free",
        "t bpf_prog_7f73e1d9ba46fe4f_of_a_program\t[bpf]",
        "t of_a_program\t[bpf]",
        "t BUG_func",
        "T __x64_sys_execve",
        "t do_execve",
    ]
    monkeypatch.setattr(machine, "_symbols", lambda: "".join(f"\n0 {line}" for line in lines) + "\n")
    assert machine._similar_symbols(name) == similar
