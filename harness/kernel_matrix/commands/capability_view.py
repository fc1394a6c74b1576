"""The command ``capabilities``: show the capability table of the baseline, or rewrite it from guests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.table import Table as RichTable

from kernel_matrix.config import manifest
from kernel_matrix.results import document
from kernel_matrix.shared import atomic, hints
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes import capability_table
from kernel_matrix.shared.outcomes.capability_table import FACTS, Context, Lines, Table
from kernel_matrix.shared.project import Project


def load(project: Project) -> dict[str, Table]:
    """Read the recorded tables by kernel; empty when there are none yet."""
    path = project.capabilities
    return capability_table.read(path.read_text()) if path.exists() else {}


def chosen(project: Project, names: Sequence[str]) -> list[str]:
    """Return the kernels of these names (``core``, ``full``); raises ManifestError."""
    return [kernel.name for kernel in manifest.select(manifest.load(project.images), names)]


def update(project: Project, names: Sequence[str], run: Callable[[list[str]], int], results: Path) -> list[str]:
    """Measure on the kernels and rewrite their entries; return a line for each change; raises HarnessError.

    ``run`` runs the matrix with pytest's arguments and returns its exit status. A kernel's table is recorded only if
    all its cells are green; it need not have a baseline of the matrix yet.
    """
    kernels = chosen(project, names)
    status = run([*(word for kernel in kernels for word in ("--kernel", kernel)), *project.measure])
    green = set(kernels) if status == 0 else _green(results) if status == 1 else set()
    tables, changes = load(project), []
    missing = []
    for kernel in kernels:
        path = results / FACTS / f"{kernel}.json"
        if kernel not in green or not path.exists():
            missing.append(kernel)
            continue
        table = Table.from_json(json.loads(path.read_text()))
        before = tables.get(kernel)
        if before is None:
            changes.append(f"{kernel}: new")
        else:
            changes += capability_table.compare_minimum(kernel, before, table)
            changes += capability_table.compare_cells(kernel, before, table)
        tables[kernel] = table
    order = [kernel.name for kernel in manifest.load(project.images).kernels]
    project.baselines.mkdir(exist_ok=True)
    atomic.write(project.capabilities, capability_table.write(tables, order))
    if missing:
        raise HarnessError(f"not measured: {', '.join(missing)}; the run ended with status {status}")
    return changes


def _green(results: Path) -> set[str]:
    """Return the kernels of a run that have no red cell; raises HarnessError."""
    cells = document.read(results).cells
    return {cell.kernel for cell in cells} - {cell.kernel for cell in cells if not cell.outcome.green}


def render(kernel: str, table: Table, *, cells: bool) -> Iterator[RichTable]:
    """Yield the tables of a kernel: the minimal sets of the shipped programs, and with ``cells`` every cell."""
    defaults = ", ".join(f"kernel.{name}={value}" for name, value in table.defaults.items())
    parts: list[tuple[str, str, Lines]] = [("minimal sets", "any one of these is enough", table.minimum)]
    if cells:
        parts.append(("every cell", "the last rule that fits decides", table.cells))
    for title, meaning, lines in parts:
        shown = RichTable(title=f"{kernel}: {title} ({defaults})", title_justify="left")
        for column in ("tried", "by", "where", meaning):
            shown.add_column(column, overflow="fold")
        for name, contexts in lines.items():
            last = ""
            for who, sysctl, line in _rows(contexts):
                shown.add_row(name if name != last else "", who, sysctl, line)
                last = name
            shown.add_section()
        yield shown


def _rows(contexts: Mapping[Context, str]) -> Iterator[tuple[str, str, str]]:
    for key, line in capability_table.grouped(contexts).items():
        who, _, sysctl = key.partition(", ")
        yield who, sysctl, line


def show(project: Project, names: Sequence[str], *, cells: bool) -> Iterator[RichTable]:
    """Yield the tables of the named kernels, none: of all recorded ones; raises ManifestError."""
    tables = load(project)
    if not tables:
        raise ManifestError(
            f"{project.relative(project.capabilities)} has no kernel: `{hints.command('capabilities', '--update')}`"
        )
    for kernel in chosen(project, names) if names else tables:
        if kernel not in tables:
            measured = hints.command("capabilities", f"--update --kernel {kernel}")
            raise ManifestError(f"{project.relative(project.capabilities)} has no kernel {kernel}: `{measured}`")
        yield from render(kernel, tables[kernel], cells=cells)
