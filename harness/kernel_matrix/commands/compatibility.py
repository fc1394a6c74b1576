"""The command ``compatibility``: what an object needs, what each kernel has of it, and what a run measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images import KernelImage, vmlinux
from kernel_matrix.objects import build
from kernel_matrix.objects.needed import compatibility
from kernel_matrix.objects.types import kernel_types
from kernel_matrix.objects.types.kernel_types import KernelTypes
from kernel_matrix.report import compatibility_page
from kernel_matrix.results import document
from kernel_matrix.results.document import Document
from kernel_matrix.results.text import reason
from kernel_matrix.shared import atomic
from kernel_matrix.shared.bpf import scenario
from kernel_matrix.shared.bpf.btf import BtfError
from kernel_matrix.shared.bpf.compatibility import Compatibility, KernelColumn, Measurement, Played
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.shared.project import Project


def run(project: Project, path: Path, names: Sequence[str], results: Path | None, output: Path | None) -> Iterator[str]:
    """Yield the page as Markdown, or, with a folder for all its forms, the files; raises HarnessError.

    ``names``: kernels; none: those of the project whose images the cache has. ``results``: a run's folder.
    """
    page = of_object(project, build.checked(path), names)
    if results is not None:
        page = measured(page, document.read(results), results)
    if output is None:
        yield compatibility_page.markdown(page).rstrip()
        return
    output.mkdir(parents=True, exist_ok=True)
    start = path.name.removesuffix(".o").removesuffix(".bpf")
    forms: dict[str, str | bytes] = {
        "html": compatibility_page.html(page), "md": compatibility_page.markdown(page),
        "json": compatibility_page.json(page), "svg": compatibility_page.badge(page),
    }  # fmt: skip
    for suffix, content in forms.items():
        target = output / f"{start}.{suffix}"
        atomic.write(target, content)
        yield str(target)


def of_object(project: Project, path: Path, names: Sequence[str]) -> Compatibility:
    """Return what an object needs, and what the kernels have of it; raises HarnessError."""
    kernel_manifest = images.load(project.images)
    columns, types = [], {}
    for kernel in manifest.select(kernel_manifest, names or ["full"]):
        image = _image(kernel_manifest, kernel, fetch=bool(names))
        if image is None:
            columns.append(KernelColumn(kernel.name, "", "its image is not in the cache: name it with --kernel"))
            continue
        try:
            types[kernel.name] = _types(kernel.name, image)
            columns.append(KernelColumn(kernel.name, image.release))
        except BtfError as error:
            columns.append(KernelColumn(kernel.name, image.release, str(error)))
    columns.sort(key=lambda column: _age(column.release or column.name))
    ordered = {column.name: types[column.name] for column in columns if column.name in types}
    page = compatibility.of_object(path.read_bytes(), project.relative(path.absolute()), columns, ordered)
    programs = (
        replace(program, file=program.file and project.relative(Path(program.file))) for program in page.programs
    )
    return replace(page, programs=tuple(programs))


def _image(kernel_manifest: Manifest, kernel: Kernel, *, fetch: bool) -> KernelImage | None:
    """Return a kernel's image; None where it is not in the cache and is not to be fetched."""
    cached = images.cached_kernel(kernel_manifest, kernel)
    return cached or (images.kernel_image(kernel_manifest, kernel) if fetch else None)


def _types(name: str, image: KernelImage) -> KernelTypes:
    """Read a kernel's types and configuration; raises BtfError."""
    kernel = image.vmlinuz.read_bytes()
    elf = kernel if kernel.startswith(b"\x7fELF") else vmlinux.of(kernel)
    if elf is None:
        raise BtfError("its file has no kernel that could be unpacked")
    config = kernel_types.options(image.config.read_text()) if image.config.is_file() else {}
    return KernelTypes(name, kernel_types.btf_of(elf), config)


def _age(release: str) -> tuple[int, ...]:
    """Return the numbers of a release, by which kernels are put in order, and by nothing else."""
    version = re.match(r"\d+(?:\.\d+)*", release)
    return tuple(int(part) for part in version[0].split(".")) if version else ()


def measured(page: Compatibility, run: Document, folder: Path) -> Compatibility:
    """Return the page with what a run measured of this object: of the same content, by its digest.

    Raises HarnessError where the run did not have that object.
    """
    same = [one for one in run.objects if one.sha256 == page.sha256]
    if not same:
        raise HarnessError(f"{folder}: no object of this run has the sha256 {page.sha256} of {page.object}")
    names = {(one.name, kernel) for one in same for kernel in one.kernels}
    programs = {program.name for program in page.programs}
    cells: list[Measurement] = []
    played: list[Played] = []
    for cell in run.cells:
        file, _, rest = cell.test.partition("::")
        program, _, step = rest.partition("::")
        if (file, cell.kernel) not in names:
            continue
        why = "" if cell.outcome.traits.done else reason(cell.detail)
        if program in programs:
            cells.append(Measurement(program, cell.kernel, step, cell.outcome, why, cell.observed))
        elif program == scenario.NODE:
            played.append(Played(step, cell.kernel, cell.outcome, why))
    columns = {column.kernel: column.release for column in run.columns}
    known = {kernel.name for kernel in page.kernels}
    ran = dict.fromkeys([*(one.kernel for one in cells), *(one.kernel for one in played)])
    more = [KernelColumn(name, columns.get(name, ""), "a column of the run only: its types were not read")
            for name in ran if name not in known]  # fmt: skip
    kernels = sorted([*page.kernels, *more], key=lambda column: _age(column.release or column.name))
    source = f"the run of {run.started} in {folder}" if cells or played else ""
    return replace(page, kernels=tuple(kernels), measured=tuple(cells), played=tuple(played), run=source)
