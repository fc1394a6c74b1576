"""What objects need of a guest: modules that its kernel's image leaves out, and memory for their maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from kernel_matrix import images
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images import KernelImage, Modules
from kernel_matrix.objects import object_file
from kernel_matrix.objects.needed import map_memory, module_names
from kernel_matrix.objects.types import kernel_types
from kernel_matrix.shared import wire
from kernel_matrix.shared.bpf.btf import Btf, BtfError
from kernel_matrix.shared.bpf.object_table import ObjectSettings
from kernel_matrix.shared.errors import ImageError, ManifestError
from kernel_matrix.shared.project import NEEDED, Project

#: part of the name of what is kept: the version of this module's conclusions
_FORMAT = "2"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What one object needs of one kernel's modules."""

    #: modules by their paths below lib/modules/RELEASE, in the order in which they are loaded
    paths: tuple[str, ...] = ()
    #: the names that neither the kernel nor a module of it has
    lacking: tuple[str, ...] = ()
    #: bytes that its maps take
    maps: int = 0


@dataclass(frozen=True, slots=True)
class Needs:
    """What the project's objects need of the guests of a kernel."""

    #: the folder with modules; None: they need none beside those of the image
    modules: Path | None = None
    #: of a guest, for the maps of each object; 0: what every guest has
    memory_mib: int = 0


@dataclass(frozen=True)
class KernelModules:
    """One kernel, of which only what is asked for is read."""

    manifest: Manifest
    kernel: Kernel
    image: KernelImage
    say: Callable[[str], None]

    @property
    def place(self) -> Path:
        """The folder in which conclusions about this image are kept."""
        # the image's folder is named by its content
        return images.needed_folder([self.image.vmlinuz.parents[1].name, self.image.release])

    @cached_property
    def types(self) -> Btf:
        """The kernel's own types; raises BtfError."""
        return kernel_types.btf_of(self.image.vmlinuz.read_bytes())

    @cached_property
    def all(self) -> Modules:
        """The kernel's modules; the first time this takes a minute. Raises ImageError."""
        announced = iter([f"{self.kernel.name}: reading its modules for what objects need (once, about a minute)"])

        def describe(content: bytes) -> Iterable[str]:
            # only modules that nothing is kept of are described
            for line in announced:
                self.say(line)
            return module_names.of_module(content, self.types)

        return images.kernel_modules(self.manifest, self.kernel, self.image, describe)

    def has(self, names: Iterable[str]) -> bool:
        """Whether the image has all modules of these names, so that the guest can load them itself."""
        lines = (self.image.vmlinuz.parents[1] / "lib" / "modules" / self.image.release / "modules.dep").read_text()
        there = {_name(line.partition(":")[0]) for line in lines.splitlines()}
        return {_name(name) for name in names} <= there


def _name(path: str) -> str:
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def prepare(project: Project, of: KernelModules, target: Path) -> Needs:
    """Write what a guest needs to load the modules that the project's objects need.

    Where a kernel's modules are unavailable, objects have those of its image.
    """
    table = project.object_table
    try:
        needed = {path: _kept((project.root / path).read_bytes(), table.of(path), of) for path in project.object_files}
        paths = dict.fromkeys(path for one in needed.values() for path in one.paths)
        contents = {_name(path): of.all.content(path) for path in paths}
    except ImageError as error:
        of.say(f"{of.kernel.name}: its further modules are unavailable: {error}")
        return Needs()
    most = max((map_memory.of_guest(one.maps) for one in needed.values()), default=0)
    if not any(one.paths or one.lacking for one in needed.values()):
        return Needs(memory_mib=most)
    target.mkdir()
    for name, content in contents.items():
        (target / f"{name}.ko").write_bytes(content)
    rows = {
        path: {"modules": [_name(file) for file in one.paths], "lacking": one.lacking} for path, one in needed.items()
    }
    (target / NEEDED).write_text(json.dumps(rows, indent=1, sort_keys=True))
    return Needs(target, most)


def _kept(data: bytes, settings: ObjectSettings, of: KernelModules) -> Conclusion:
    """Return the conclusion about an object, kept by the digests of it and of the kernel."""
    asked = json.dumps([settings.modules, dict(settings.targets), dict(settings.sections)], sort_keys=True)
    file = of.place / f"{images.digest([_FORMAT, data, asked])}.json"
    if file.exists():
        return wire.decode(file.read_bytes(), Conclusion)
    conclusion = _conclude(data, settings, of)
    wire.write(file, conclusion)
    return conclusion


def _conclude(data: bytes, settings: ObjectSettings, of: KernelModules) -> Conclusion:
    try:
        file = object_file.read(data, "")
        maps = map_memory.of_object(file, settings)
    except (ManifestError, BtfError):
        # the guest says that it is no object
        file, maps = None, 0
    if settings.modules:
        if of.has(settings.modules):
            return Conclusion(maps=maps)
        return Conclusion(of.all.in_order(of.all.called(settings.modules).values()), maps=maps)
    try:
        missing = module_names.missing(module_names.of_object(file, settings), of.types) if file else frozenset()
    except BtfError:
        # a kernel without types: the guest says so
        missing = frozenset()
    if not missing:
        return Conclusion(maps=maps)
    having = of.all.having(sorted(missing))
    lacking = sorted(module_names.plain(name) for name in missing - having.keys())
    return Conclusion(of.all.in_order(having.values()), tuple(lacking), maps)
