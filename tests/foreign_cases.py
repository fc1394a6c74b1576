"""The cases of tests/cases: compiled as a project of objects, and the cells that are expected of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.objects import build
from tests.projects import HERE

CASES = Path(__file__).resolve().parent / "cases"
#: objects that are refused, or attached, in one more way each: only attaching them is tried
REFUSALS = CASES.with_name("refusals")
#: the kernel whose types the cases are compiled with
TYPES_OF = "6.12"
_MACROS = ("-D__TARGET_ARCH_x86", "-Wno-unused-value")
#: how a source says what else it is compiled with
_FLAGS = re.compile(r"^// compiled with: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a cell is to be: its outcome, and the words with which its text begins."""

    outcome: str
    text: str = ""


PASSES = Wanted("pass")


def expected(cases: Path = CASES) -> dict[str, dict[str, Wanted]]:
    """Return the cells that do not pass: pattern -> kernel -> what it is to be."""
    table = tomllib.loads((cases / "expected.toml").read_text())
    return {
        pattern: {kernel: Wanted(*wanted) for kernels, wanted in rows.items() for kernel in kernels.split()}
        for pattern, rows in table.items()
    }


def wanted(test: str, kernel: str, table: Mapping[str, Mapping[str, Wanted]]) -> Wanted:
    """Return what a cell is to be, by its name below the folder of objects."""
    rows = [rows for pattern, rows in table.items() if fnmatchcase(test, pattern)]
    assert len(rows) <= 1, f"{test}: {len(rows)} patterns"
    if not rows and test.endswith("::capabilities"):
        # measured by attaching; what has no target is measured by loading alone
        attached = wanted(test.removesuffix("capabilities") + "attach", kernel, table)
        return PASSES if attached.outcome == "undeclared" else attached
    return rows[0].get(kernel, PASSES) if rows else PASSES


def compile_to(folder: Path, types: Path, sources: Iterable[Path] | None = None, cases: Path = CASES) -> None:
    """Compile the cases below ``folder``/objects with a folder that has vmlinux.h."""
    for source in sources or sorted(cases.glob("*/*.bpf.c")):
        target = folder / "objects" / source.parent.name / source.name.replace(".c", ".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        own = _FLAGS.search(source.read_text())
        build.compile_source(source, target, (types,), (*_MACROS, *(own[1].split() if own else ())), root=cases)


def make_project(folder: Path, cases: Path = CASES) -> None:
    """Make the project of the cases: vmlinux.h from a kernel's image, the objects, the table."""
    kernels = images.load(HERE.images)
    (kernel,) = manifest.select(kernels, [TYPES_OF])
    types = folder / "types"
    types.mkdir()
    command = ["bpftool", "btf", "dump", "file", str(images.kernel_image(kernels, kernel).vmlinuz), "format", "c"]
    with (types / "vmlinux.h").open("w") as header:
        subprocess.run(command, stdout=header, check=True)
    compile_to(folder, types, cases=cases)
    shutil.copy(cases / "kernel-matrix.toml", folder)
    if (own := cases / "scenarios" / "own_tests.py").exists():
        # a name that pytest collects, which it is not to do here
        (folder / "tests").mkdir()
        shutil.copy(own, folder / "tests" / "test_own.py")
