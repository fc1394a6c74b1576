"""Take the digests of all that a run is made of, and find the sources of its programs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kernel_matrix import images
from kernel_matrix.images import KernelImage, RootImage
from kernel_matrix.objects.build import ENGINE_OBJECTS
from kernel_matrix.objects.code import INSTRUCTION
from kernel_matrix.results.evidence import Digest, ObjectEvidence, ProgramSource
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project

if TYPE_CHECKING:
    from kernel_matrix.objects.object_file import Function
    from kernel_matrix.objects.types.btf_ext import SourceLine

#: the files of a project that say what runs where, beside its table
_IMAGES = ("kernels.toml", "kernels.lock.toml", "features.toml", "rootfs.toml", "variants.toml")


def of_guest(image: KernelImage, root: RootImage, programs: Mapping[str, Path]) -> tuple[Digest, ...]:
    """Return the digests of what a guest is made of; ``programs``: the loaders that it gets, by their names."""
    files = {"kernel": image.vmlinuz, "modules": image.modules}
    digests = [Digest(name, images.content_digest(path)) for name, path in files.items()]
    if config := image.config.read_bytes():
        digests.append(Digest("configuration", hashlib.sha256(config).hexdigest()))
    digests.append(Digest("image", root.digest))
    digests += [Digest(f"loader {name}", _digest(path)) for name, path in sorted(programs.items())]
    return tuple(digests)


def of_project(project: Project) -> tuple[Digest, ...]:
    """Return the digests of the files that configure a run."""
    files = [project.root / project.table, *(project.images / name for name in _IMAGES)]
    return tuple(Digest(_stable(project, path), _digest(path)) for path in files if path.is_file())


def _stable(project: Project, path: Path) -> str:
    """Return a file's name that is the same on every machine: the engine's own are in no project."""
    return project.relative(path) if path.is_relative_to(project.root) else f"{path.parent.name}/{path.name}"


def of_objects(project: Project, paths: Mapping[str, Path], kernels: Iterable[str]) -> tuple[ObjectEvidence, ...]:
    """Return the project's objects as cells name them; ``paths``: the compiled ones, by name.

    Objects that the project's table names are added: others compiled them. `with_sources` completes them.
    """
    guests = tuple(kernels)
    compiled = {path for name, path in paths.items() if not name.startswith(ENGINE_OBJECTS)}
    named = {project.root / name for name in project.object_files}
    return tuple(ObjectEvidence(project.relative(path), _digest(path), guests) for path in sorted(compiled | named))


def joined(objects: Iterable[ObjectEvidence]) -> tuple[ObjectEvidence, ...]:
    """Join the objects of machines or shards: the same content under the same name is one object."""
    same: dict[tuple[str, str], ObjectEvidence] = {}
    for one in objects:
        before = same.get((one.name, one.sha256))
        kernels = (*before.kernels, *one.kernels) if before else one.kernels
        same[one.name, one.sha256] = replace(before or one, kernels=tuple(dict.fromkeys(kernels)))
    return tuple(same[key] for key in sorted(same))


def with_sources(project: Project, objects: Iterable[ObjectEvidence]) -> tuple[ObjectEvidence, ...]:
    """Add the programs' sources, which takes longer than all digests: guests need not wait for it.

    An object that is no longer what guests got has none, nor has a file that is no object: a test may have its own use
    for one.
    """
    return tuple(_with_sources(project, one) for one in objects)


def _with_sources(project: Project, bare: ObjectEvidence) -> ObjectEvidence:
    # elftools, which a run needs for nothing else
    from kernel_matrix.objects import object_file

    try:
        data = (project.root / bare.name).read_bytes()
        if bare.programs or hashlib.sha256(data).hexdigest() != bare.sha256:
            return bare
        functions = object_file.read_lines(data, bare.name)
    except (FileNotFoundError, ManifestError):
        return bare
    files: dict[str, int] = {}
    programs = tuple(ProgramSource(one.name, tuple(_lines(one, lines, files))) for one, lines in functions)
    return replace(bare, files=tuple(project.relative(Path(file)) for file in files), programs=programs)


def _lines(program: Function, lines: Iterable[SourceLine], files: dict[str, int]) -> Iterator[tuple[int, int, int]]:
    """Yield what `ProgramSource` has of a program; ``files``: the sources so far and their numbers."""
    for line in lines:
        if program.start <= line.offset < program.end and line.line:
            number = files.setdefault(line.file, len(files))
            yield (line.offset - program.start) // INSTRUCTION, number, line.line


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
