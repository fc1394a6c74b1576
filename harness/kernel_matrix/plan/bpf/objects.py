"""What must hold of a project's objects before anything boots."""

from __future__ import annotations

from collections.abc import Callable

from kernel_matrix.config.manifest import GROUPS, Manifest
from kernel_matrix.objects import build
from kernel_matrix.plan.bpf import scenarios
from kernel_matrix.shared.bpf import bpf_elf
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project


def make_first(project: Project, say: Callable[[str], None]) -> None:
    """Make what patterns of the table name: by the table's command, or from the sources. Raises BuildError."""
    if project.make:
        say(f"build: {project.make}")
        build.make(project)
    if project.objects and project.sources is not None:
        build.build_all(project)


def check(project: Project, kernel_manifest: Manifest) -> None:
    """Refuse unknown kernels, patterns without an object, expectations about what is not; raises ManifestError."""
    _check_kernels(project, kernel_manifest)
    for pattern in project.objects:
        if not any(path.is_file() for path in project.root.glob(pattern)):
            raise ManifestError(f"{project.table}: objects: {pattern}: no such file below {project.root}")
    _check_expected(project, kernel_manifest)
    for name in project.object_table.settings:
        if project.objects and not any(project.object_table.names(name, path) for path in project.object_files):
            raise ManifestError(f'{project.table}: object."{name}": no object is called so')
    _check_commands(project, kernel_manifest)
    scenarios.check(project)


def _check_expected(project: Project, kernel_manifest: Manifest) -> None:
    features = {feature.name for feature in kernel_manifest.features}
    for entry in project.object_table.expected:
        where = f"{project.table}: expect {entry.cells}"
        for kernel in entry.kernels:
            if kernel not in kernel_manifest.guests:
                raise ManifestError(f"{where}: unknown kernel {kernel!r}")
        if entry.without and entry.without not in features:
            raise ManifestError(f"{where}: unknown feature {entry.without!r}")
    if project.objects and project.object_table.expected:
        _check_cells(project)


def _check_cells(project: Project) -> None:
    """Refuse an expectation that is about no cell of the objects, or of a program that it names."""
    # importing this takes a tenth of a second
    from kernel_matrix.guest.pytest.items import objects as items

    table = project.object_table
    cells = {
        path: list(items.cells_of(path, bpf_elf.read(project.root / path), table)) for path in project.object_files
    }
    for entry in table.expected:
        files = [path for path in cells if entry.concerns(path)]
        if not files:
            raise ManifestError(f"{project.table}: expect {entry.cells}: no object is called so")
        if not items.has_cells(entry, [cell for path in files for cell in cells[path]]):
            which = files[0] if len(files) == 1 else "no object"
            raise ManifestError(f"{project.table}: expect {entry.cells}: {which} has no such cell")


def _check_commands(project: Project, kernel_manifest: Manifest) -> None:
    for command in project.commands:
        for kernel in command.known_issue_kernels:
            if kernel not in kernel_manifest.guests:
                raise ManifestError(f"{project.table}: commands: {command.run}: unknown kernel {kernel!r}")


def _check_kernels(project: Project, kernel_manifest: Manifest) -> None:
    known = [*GROUPS, *(kernel.name for kernel in kernel_manifest.kernels)]
    for name in project.kernels:
        if name not in known:
            raise ManifestError(f"{project.table}: kernels: unknown kernel {name!r} (known: {', '.join(known)})")
