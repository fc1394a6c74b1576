"""The manifest: the TOML files of the project's images (kernels, features, guest root, variants) as frozen data.

Every mistake in it is a ManifestError of one line that names the file, the key and what is allowed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from kernel_matrix.results.comparison import Scope
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes.features import VARIANT, Feature, parse_features
from kernel_matrix.shared.project import GuestNeeds, Project

#: groups of kernels; ``full`` is all tiers
GROUPS = ("core", "full")


class Kernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kernel of kernels.toml."""

    tier: Literal["core", "extended"]
    #: where it comes from (kernel_matrix.images.providers)
    provider: str
    #: the names of features.toml that this kernel has
    features: tuple[str, ...] = ()
    #: factor by which its waits, such as grace periods, are longer than those of other kernels
    patience: Annotated[float, msgspec.Meta(ge=1)] = 1.0
    #: the table's name; not a key
    name: str = ""
    #: the other keys of its table, which its provider reads
    keys: dict[str, Any] = {}


#: the keys that a kernel may have with any provider
KERNEL_KEYS = tuple(name for name in Kernel.__struct_fields__ if name not in {"name", "keys"})


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kernel command line of variants.toml."""

    #: one line about what is different
    meaning: str
    #: added to the kernel's command line
    append: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    #: features that a kernel gains, and features that it loses
    adds: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    #: the table's name; not a key
    name: str = ""

    def of(self, kernel: Kernel) -> str:
        """Return the name of that kernel's guest with this command line."""
        return f"{kernel.name}{VARIANT}{self.name}"

    def features(self, kernel: Kernel) -> frozenset[str]:
        """Return the features of that kernel with this command line."""
        return (frozenset(kernel.features) | set(self.adds)) - set(self.removes)

    def changes(self, kernel: Kernel) -> bool:
        """Whether that kernel differs with it; a kernel with all the features that the variant adds does not."""
        return not self.adds or self.features(kernel) != frozenset(kernel.features)


class _Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[gate] of kernels.toml."""

    cost_growth: Annotated[float, msgspec.Meta(ge=0)] = 0.1
    drift: Literal["say", "gate"] = "say"


class Root(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """rootfs.toml: the guest's root image and the modules that every kernel image keeps."""

    suite: str
    packages: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    #: file of this folder -> its absolute path in the image; mode 0755
    files: dict[str, str]
    #: pip's requirements for the guest's Python, a file of this folder
    requirements: str
    #: unprivileged users: name -> uid
    users: dict[str, int]
    #: globs of files that are deleted after the installation
    drop: tuple[str, ...]
    #: kernel modules that are kept, with their dependencies
    modules: tuple[str, ...]


class Manifest(msgspec.Struct, frozen=True):
    """The contents of the folder of the project's images."""

    folder: Path
    kernels: tuple[Kernel, ...]
    features: tuple[Feature, ...]
    root: Root
    variants: tuple[Variant, ...] = ()
    gate: Scope = Scope()
    #: what the project's guests have beside that root
    guest: GuestNeeds = GuestNeeds()

    @property
    def guests(self) -> dict[str, frozenset[str]]:
        """All possible guests, which are kernels and their variants, with their features."""
        plain = {kernel.name: frozenset(kernel.features) for kernel in self.kernels}
        return plain | {
            variant.of(kernel): variant.features(kernel) for kernel in self.kernels for variant in self.variants
        }


def with_guest(manifest: Manifest, project: Project) -> Manifest:
    """Return the manifest of a project's guests: with what its table adds to their root image."""
    return msgspec.structs.replace(manifest, guest=project.guest)


def gate(project: Project, manifest: Manifest) -> Scope:
    """Return how strictly a project's run is compared; in a project without baselines, no kernel needs one."""
    return manifest.gate if project.keeps_baselines else replace(manifest.gate, kernels=frozenset())


_T = TypeVar("_T")


def load(folder: Path) -> Manifest:
    """Read kernels.toml, features.toml, rootfs.toml and variants.toml of ``folder``."""
    features = parse_features(_text(folder / "features.toml"), source="features.toml")
    variants = folder / "variants.toml"
    names = {feature.name for feature in features}
    kernels = parse_kernels(_text(folder / "kernels.toml"), names)
    gate = parse_gate(_text(folder / "kernels.toml"))
    return Manifest(
        folder=folder,
        kernels=kernels,
        gate=replace(gate, kernels=frozenset(kernel.name for kernel in kernels)),
        features=features,
        root=_convert(_toml(_text(folder / "rootfs.toml"), "rootfs.toml"), Root, "rootfs.toml"),
        variants=parse_variants(_text(variants), names) if variants.exists() else (),
    )


def parse_kernels(text: str, features: Iterable[str]) -> tuple[Kernel, ...]:
    """Parse the text of kernels.toml; ``features`` are the names that a kernel may list.

    The keys of providers are not checked here (`kernel_matrix.images.load` checks them).
    """
    tables = _toml(text, "kernels.toml")
    if set(tables) - {"gate"} != {"kernel"} or not isinstance(tables["kernel"], dict):
        raise ManifestError('kernels.toml: only [gate] and tables [kernel."NAME"] are allowed')
    feature_names = set(features)
    kernels = []
    for name, table in tables["kernel"].items():
        where = f'kernels.toml: kernel "{name}"'
        if not isinstance(table, dict) or "name" in table:
            raise ManifestError(f"{where}: must be a table without a key 'name'")
        keys = {key: value for key, value in table.items() if key not in KERNEL_KEYS}
        common = {key: value for key, value in table.items() if key in KERNEL_KEYS}
        kernel = _convert({**common, "name": name, "keys": keys}, Kernel, where)
        if name in GROUPS or "/" in name or VARIANT in name or name.strip() != name or not name:
            raise ManifestError(f"{where}: not a name for a kernel")
        for feature in kernel.features:
            if feature not in feature_names:
                raise ManifestError(f"{where}: unknown feature {feature!r} (known: {', '.join(sorted(feature_names))})")
        kernels.append(kernel)
    return tuple(kernels)


def parse_gate(text: str) -> Scope:
    """Parse [gate] of kernels.toml: what makes a run red besides red cells."""
    gate = _convert(_toml(text, "kernels.toml").get("gate", {}), _Gate, "kernels.toml: [gate]")
    return Scope(cost_growth=gate.cost_growth, drift_gates=gate.drift == "gate")


def parse_variants(text: str, features: Iterable[str]) -> tuple[Variant, ...]:
    """Parse the text of variants.toml; ``features`` are the names that a variant may add or remove."""
    feature_names = set(features)
    variants = []
    for name, table in _toml(text, "variants.toml").items():
        where = f"variants.toml: {name}"
        if not isinstance(table, dict) or "name" in table:
            raise ManifestError(f"{where}: must be a table without a key 'name'")
        variant = _convert({**table, "name": name}, Variant, where)
        if not name.isidentifier():
            raise ManifestError(f"{where}: not a name for a variant (letters, digits and _)")
        for feature in (*variant.adds, *variant.removes):
            if feature not in feature_names:
                raise ManifestError(f"{where}: unknown feature {feature!r} (known: {', '.join(sorted(feature_names))})")
        variants.append(variant)
    return tuple(variants)


def select(manifest: Manifest, names: Iterable[str]) -> tuple[Kernel, ...]:
    """Return the kernels of these names (none: core; ``core`` and ``full`` are groups) in the manifest's order."""
    selected = list(names) or ["core"]
    by_name = {kernel.name: kernel for kernel in manifest.kernels}
    for name in selected:
        if name not in by_name and name not in GROUPS:
            raise ManifestError(f"unknown kernel {name!r} (known: {', '.join([*GROUPS, *by_name])})")
    return tuple(
        kernel
        for kernel in manifest.kernels
        if kernel.name in selected or "full" in selected or (kernel.tier == "core" and "core" in selected)
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error


def _toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{source}: {error}") from error


def _convert(table: dict[str, Any], kind: type[_T], where: str) -> _T:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        keys = ", ".join(field.name for field in msgspec.structs.fields(kind) if field.name not in {"name", "keys"})  # type: ignore[arg-type]
        raise ManifestError(f"{where}: {error} (keys: {keys})") from error
