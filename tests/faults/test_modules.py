"""Objects whose functions are in modules that no image keeps: these are loaded for them, and unloaded (with VMs)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kernel_matrix.objects import build
from kernel_matrix.results import document
from kernel_matrix.shared.outcomes.cells import Cell

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("fentry/bbr_main") int in_a_module(void *ctx) { return 0; }
SEC("kprobe/dctcp_init") int in_another(void *ctx) { return 0; }
SEC("kprobe/no_such_function_at_all") int in_none(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
TABLE = """
objects = ["*.bpf.o"]
kernels = ["6.1"]
[object."declared.bpf.o"]
modules = ["tcp_dctcp"]
"""
#: run as the last file: what the objects' modules leave
TEST = """
from pathlib import Path


def test_no_module_is_left():
    names = {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
    assert names.isdisjoint({"tcp_bbr", "tcp_dctcp"})
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cell]:
    """Run the object as it is, and with a table that names one of the modules."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "x.bpf.c").write_text(SOURCE)
    for name in ("own", "declared"):
        build.compile_source(folder / "x.bpf.c", folder / f"{name}.bpf.o", (), root=folder)
    (folder / "test_left.py").write_text(TEST)
    (folder / "kernel-matrix.toml").write_text(f'tests = ["test_left.py"]\n{TABLE}')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KERNEL_MATRIX_ROOT")}
    arguments = ["declared.bpf.o", "own.bpf.o", "test_left.py"]
    done = subprocess.run(
        [sys.executable, "-m", "kernel_matrix", "run", "-q", "-k", "load or attach or left", *arguments],
        cwd=folder, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    return {cell.test: cell for cell in document.read(folder / "results" / "latest").cells}


def test_what_is_in_a_module_is_attached(cells: dict[str, Cell]) -> None:
    for name in ("in_a_module", "in_another"):
        for act in ("load", "attach"):
            assert cells[f"own.bpf.o::{name}::{act}"].outcome == "pass"


def test_what_is_in_no_module_says_so(cells: dict[str, Cell]) -> None:
    detail = cells["own.bpf.o::in_none::attach"].detail
    assert detail.startswith(
        "refused at attach: ENOENT: symbol missing: the kernel has no function no_such_function_at_all, nor one of a"
        " like name, and no module of it has one"
    )


def test_the_tables_modules_come_instead(cells: dict[str, Cell]) -> None:
    """With a module that it does not need, the object lacks the one that it needs."""
    assert cells["declared.bpf.o::in_another::attach"].outcome == "pass"
    detail = cells["declared.bpf.o::in_a_module::load"].detail
    assert detail.startswith("refused at load: ESRCH: symbol missing: the kernel has no function bbr_main")


def test_the_modules_are_unloaded(cells: dict[str, Cell]) -> None:
    assert cells["test_left.py::test_no_module_is_left"].outcome == "pass"
