"""What guests are given: the image, headers and modules of their kernel, loaders' programs; and how much fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.images import KernelImage
from kernel_matrix.objects import loader_programs
from kernel_matrix.plan import selection
from kernel_matrix.plan.guest_list import GuestList, ListedGuest, RunRequest
from kernel_matrix.relay import payload
from kernel_matrix.shared.errors import ImageError, ManifestError, NotInArchive, ToolMissing
from kernel_matrix.shared.outcomes.features import plain_kernel
from kernel_matrix.shared.project import COMPILING_LOADERS, MEMORY_MIB, Project

#: memory of a guest that a carried folder may take: it is there twice while it is unpacked
_MOST_CARRIED_MIB = 96


@dataclass(frozen=True, slots=True)
class Guest:
    """A listed guest and its kernel's image."""

    listed: ListedGuest
    image: KernelImage
    #: the folder with modules that the project's objects need; None: they need none beside those of the image
    modules: Path | None = None
    #: MiB that it has at least, for the maps of the project's objects
    memory_mib: int = 0
    #: the erofs with its kernel's headers; None: no test of the guest needs them, or they are unavailable
    headers: Path | None = None
    #: as in `GuestFacts`
    loaders: Mapping[str, str] = field(default_factory=dict)


def loaders(
    project: Project, request: RunRequest, say: Callable[[str], None]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Build the loaders' programs; return them, and for each loader of the run why this machine lacks it, or "".

    A run of tests that load nothing builds nothing.

    Raises BuildError, and ToolMissing for a required loader that this machine lacks.
    """
    programs: dict[str, Path] = {}
    lacking = dict.fromkeys(request.loaders, "")
    if not selection.loads(project, request.arguments):
        return {}, lacking
    for name in filter(loader_programs.is_program, request.loaders):
        try:
            programs |= loader_programs.build(name, images.cache_dir())
        except loader_programs.Lacking as error:
            if name in request.required_loaders:
                raise ToolMissing(f"--require-loader {error}") from error
            lacking[name] = str(error)
            say(f"left out: {error}")
    return programs, lacking


def check_carried(folder: Path | None) -> None:
    """Refuse a folder that cannot be carried, before a guest boots; raises ManifestError."""
    if folder is None:
        return
    if not folder.is_dir():
        raise ManifestError(f"--carry {folder}: no such folder")
    if (mib := payload.size(folder) >> 20) > _MOST_CARRIED_MIB:
        raise ManifestError(f"--carry {folder}: {mib} MiB; a guest has room for {_MOST_CARRIED_MIB} MiB")


def check_room(project: Project) -> None:
    """Refuse a project that does not fit into its guests, before one boots; raises ManifestError."""
    files = payload.project_files(payload.of_project(project))
    mib = sum((project.root / path).stat().st_size for path in files) >> 20
    room = project.guest.memory_mib * _MOST_CARRIED_MIB // MEMORY_MIB
    if mib > room:
        raise ManifestError(
            f"{project.table}: guests would get {mib} MiB of the project, and have room for {room} MiB:"
            " name what they need with `carry`, or more guest.memory"
        )


def with_images(
    listed: GuestList, request: RunRequest, *, say: Callable[[str], None]
) -> tuple[list[Guest], dict[str, str]]:
    """Fetch the images; return the guests in their order, and for each kernel without an image why."""
    fetched: dict[str, KernelImage] = {}
    missing = {}
    for kernel, guests in listed.kernels:
        try:
            image = images.kernel_image(listed.kernel_manifest, kernel, locked_only=request.locked)
        except ImageError as error:
            missing[kernel.name] = str(error)
            say(f"{kernel.name}: {error}")
        else:
            fetched |= {guest.name: image for guest in guests}
            for note in image.notes:
                say(f"{kernel.name}: {note}")
    return [Guest(guest, fetched[guest.name]) for guest in listed.guests if guest.name in fetched], missing


def with_needs_of_objects(
    project: Project,
    guests: Sequence[Guest],
    kernel_manifest: manifest.Manifest,
    folder: Path,
    say: Callable[[str], None],
) -> list[Guest]:
    """Get the modules and the memory that the project's objects need of each kernel; its guests have the same."""
    if not project.object_files:
        return list(guests)
    # it reads objects and kernels with elftools, which takes longer to import than to plan a run without objects
    from kernel_matrix.plan.bpf import kernel_modules

    needs: dict[str, kernel_modules.Needs] = {}
    for guest in guests:
        name = plain_kernel(guest.listed.name)
        if name not in needs:
            (kernel,) = manifest.select(kernel_manifest, [name])
            of = kernel_modules.KernelModules(kernel_manifest, kernel, guest.image, say)
            needs[name] = kernel_modules.prepare(project, of, folder / f"{name}.modules")
    with_needs = []
    for guest in guests:
        of_kernel = needs[plain_kernel(guest.listed.name)]
        with_needs.append(replace(guest, modules=of_kernel.modules, memory_mib=of_kernel.memory_mib))
    return with_needs


def with_headers(
    project: Project,
    guest: Guest,
    kernel_manifest: manifest.Manifest,
    request: RunRequest,
    loaders: Mapping[str, str],
    say: Callable[[str], None],
) -> Guest:
    """Fetch the headers of a guest's kernel where a loader compiles in the guest and its tests load objects.

    Raises ToolMissing where such a loader is required and the headers are unavailable; not for a kernel that has none.
    """
    compiling = [name for name in request.loaders if name in COMPILING_LOADERS]
    if not compiling or not selection.loads(project, guest.listed.arguments or request.arguments):
        return replace(guest, loaders=loaders)
    (kernel,) = manifest.select(kernel_manifest, [plain_kernel(guest.listed.name)])
    try:
        path = images.kernel_headers(kernel_manifest, kernel, guest.image, locked_only=request.locked)
    except ImageError as error:
        required = [name for name in compiling if name in request.required_loaders]
        if required and not isinstance(error, NotInArchive):
            raise ToolMissing(f"--require-loader {required[0]}: {error}") from error
        say(f"left out on {guest.listed.name}: {', '.join(compiling)}: {error}")
        return replace(guest, loaders={**loaders, **{name: f"{name}: {error}" for name in compiling}})
    return replace(guest, headers=path, loaders=loaders)
