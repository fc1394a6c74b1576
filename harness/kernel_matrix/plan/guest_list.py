"""The guests that a run needs and the files of each, decided before anything is fetched or booted.

It depends on the command line, the manifest and the project's files alone: every machine decides the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.plan import selection, sharding
from kernel_matrix.plan.bpf import objects
from kernel_matrix.plan.sharding import Part, Shard, Unit
from kernel_matrix.relay import payload
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes.expect import kernel_of_argument
from kernel_matrix.shared.outcomes.features import VARIANT, plain_kernel
from kernel_matrix.shared.project import Project


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the command line asks for."""

    #: names, ``core`` or ``full``; empty: core
    kernels: tuple[str, ...]
    #: pytest's positional arguments: node ids in them may name kernels
    arguments: tuple[str, ...]
    guests: int | None
    locked: bool
    silence: float | None
    boot_timeout: float | None = None
    manifest: Path | None = None
    #: boot every guest, save and restore none
    cold: bool = False
    #: ignore what earlier runs concluded without proof (`kernel_matrix.shared.conclusions`)
    ask_again: bool = False
    #: the folder of the baseline; None: the project's
    baseline: Path | None = None
    #: as in `Job`; "whole": "always" for kernels, "again" for their variants
    worker: Literal["never", "again", "always", "whole"] = "never"
    #: as in `Job`
    worker_kind: str = ""
    #: whether guests may be prepared for the project's tests
    rehearsed: bool = False
    with_cache: bool = False
    #: pytest's options that narrow the selection of tests: ``-k``, ``-m``, ``--lf``
    options: tuple[str, ...] = ()
    #: the whole command line, as pytest was given it
    words: tuple[str, ...] = ()
    #: whether it deselects no test
    whole: bool = False
    #: the part of the run to do; None: all of it
    shard: Shard | None = None
    #: a folder of the user, carried into each guest
    carried: Path | None = None
    #: whether a kernel's tests may be divided between several guests at once
    divided: bool = False
    #: guest -> its files as in `ListedGuest`, as decided by another machine; None: decided here
    dealt: dict[str, tuple[str, ...]] | None = None
    #: the loaders that tests run with, and those without which the run fails
    loaders: tuple[str, ...] = ()
    required_loaders: tuple[str, ...] = ()


def arguments_without_tests(project: Project, kernels: Iterable[str]) -> tuple[str, ...]:
    """Return the `RunRequest.arguments` of a run without tests.

    A kernel's variants are listed only where tests ask for them.
    """
    return project.tests if any(VARIANT in name for name in kernels) else ()


@dataclass(frozen=True, slots=True)
class GuestList:
    """The guests of a run."""

    kernel_manifest: manifest.Manifest
    #: kernels and guests as named on the command line
    named: tuple[str, ...]
    #: kernels in the manifest's order, with their guests
    kernels: tuple[tuple[manifest.Kernel, tuple[ListedGuest, ...]], ...]
    #: this shard of the run; None for a whole run
    part: Part | None = None

    @property
    def guests(self) -> tuple[ListedGuest, ...]:
        """All guests, the long ones first: most tests run on plain kernels, few on variants."""
        guests = [guest for _, listed in self.kernels for guest in listed]
        return tuple(sorted(guests, key=lambda guest: VARIANT in guest.name))


def list_guests(project: Project, request: RunRequest) -> GuestList:
    """List the guests that the command line asks for; raises ManifestError."""
    if request.guests is not None and request.guests < 1:
        raise ManifestError(f"--guests {request.guests}: at least one guest is needed")
    _check_paths(project, request.arguments)
    kernel_manifest = manifest.with_guest(images.load(request.manifest or project.images), project)
    objects.check(project, kernel_manifest)
    named = _kernel_names(project, request, list(kernel_manifest.guests))
    chosen = manifest.select(kernel_manifest, [plain_kernel(name) for name in named])
    guests = GuestChoice.of(project, kernel_manifest, request, named)
    listed = GuestList(kernel_manifest, named, _booted(guests, chosen))
    if not listed.guests:
        raise ManifestError(f"{' '.join(named)}: no selected test asks for it, or it does not change the kernel")
    if request.shard is None:
        return listed
    part = part_of(project, listed, request, request.shard)
    files = {kernel: part.files(kernel) for kernel in part.kernels if part.files(kernel)}
    return replace(listed, kernels=_booted(replace(guests, dealt=files), chosen), part=part)


def _booted(
    choice: GuestChoice, kernels: Sequence[manifest.Kernel]
) -> tuple[tuple[manifest.Kernel, tuple[ListedGuest, ...]], ...]:
    return tuple((kernel, guests) for kernel in kernels if (guests := tuple(choice.guests_of(kernel))))


@dataclass(frozen=True, slots=True)
class ListedGuest:
    """A kernel with one of its command lines, and the files that run there."""

    name: str
    features: frozenset[str]
    append: tuple[str, ...] = ()
    #: the files that it collects: those of its shard, or those with tests for its variant; empty: all that the command
    #: line names
    arguments: tuple[str, ...] = ()
    patience: float = 1.0


@dataclass(frozen=True, slots=True)
class GuestChoice:
    """Which guests of a kernel the run needs: the plain one, and one for each variant that a selected test asks for."""

    variants: tuple[manifest.Variant, ...]
    #: guests with variants for which a test is selected
    selected: frozenset[str]
    #: the guests that the command line names, where it names one with a variant; empty: all that are selected
    named: frozenset[str]
    #: file -> the variants that its tests ask for
    files: Mapping[str, frozenset[str]]
    #: guest -> its files, for the guests to list; None: all guests
    dealt: Mapping[str, tuple[str, ...]] | None = None

    @classmethod
    def of(
        cls, project: Project, kernel_manifest: manifest.Manifest, request: RunRequest, named: Sequence[str]
    ) -> GuestChoice:
        """Read it from the request; raises ManifestError for an unknown name, or a variant without a test."""
        for name in named:
            if VARIANT in name and name not in kernel_manifest.guests:
                names = ", ".join(variant.name for variant in kernel_manifest.variants)
                raise ManifestError(f"unknown kernel {name!r} (a kernel's name, +, and one of: {names or 'none'})")
        tests = selection.Selection(request.arguments, request.options)
        files = selection.variants_by_file(project.root, tests)
        selection.check(project, files, [variant.name for variant in kernel_manifest.variants])
        possible = {
            variant.of(kernel): variant.name
            for kernel in manifest.select(kernel_manifest, [plain_kernel(name) for name in named])
            for variant in kernel_manifest.variants
            if variant.changes(kernel)
        }
        selected = selection.guests(project, tests, possible)
        exact = {name for name in named if VARIANT in name}
        if exact and (plain := [name for name in named if VARIANT not in name]):
            exact |= {kernel.name for kernel in manifest.select(kernel_manifest, plain)}
        return cls(kernel_manifest.variants, selected, frozenset(exact), files, request.dealt)

    def guests_of(self, kernel: manifest.Kernel) -> Iterator[ListedGuest]:
        """Yield the guests of a kernel, with their files."""
        for guest in self._all_of(kernel):
            if self.dealt is None:
                yield guest
            elif guest.name in self.dealt:
                yield replace(guest, arguments=self.dealt[guest.name])

    def _all_of(self, kernel: manifest.Kernel) -> Iterator[ListedGuest]:
        if not self.named or kernel.name in self.named:
            yield ListedGuest(kernel.name, frozenset(kernel.features), patience=kernel.patience)
        for variant in self.variants:
            name = variant.of(kernel)
            if name in self.selected and (not self.named or self.named & {name, kernel.name}):
                files = tuple(file for file, variants in self.files.items() if variant.name in variants)
                yield ListedGuest(name, variant.features(kernel), variant.append, files, kernel.patience)


def weigh(project: Project, listed: GuestList, request: RunRequest) -> dict[Unit, float]:
    """Return the test files of each guest, and how long each takes in seconds."""
    guests = {guest.name: guest.arguments for guest in listed.guests}
    units = sharding.units(
        guests,
        request.arguments,
        listed.kernel_manifest.guests,
        lambda argument: selection.test_files(project.root, argument),
    )
    return sharding.weigh(units, sharding.read_durations(project.durations))


def pieces(project: Project, listed: GuestList, request: RunRequest) -> tuple[dict[Unit, float], dict[str, str]]:
    """Return the seconds of units for further guests of a kernel, and what each file is not divided from."""
    weights = weigh(project, listed, request)
    if listed.part is not None:
        weights = {unit: seconds for unit, seconds in weights.items() if unit in listed.part.units}
    return weights, {unit.file: selection.piece_path(project.root, unit.file) for unit in weights}


def part_of(project: Project, whole: GuestList, request: RunRequest, shard: Shard) -> Part:
    """Divide the whole run and return the part of this shard; raises ManifestError."""
    if "--lf" in request.options:
        raise ManifestError(
            "--shard: which tests failed last differs between machines: use it without --lf, --last-failed"
        )
    folder = cache(lambda file: selection.piece_path(project.root, file))
    parts = sharding.divide(weigh(project, whole, request), shard.count, folder)
    return Part(
        shard=shard,
        division=sharding.digest(parts),
        project=payload.digest(project),
        selection=(*request.arguments, *request.options),
        kernels=tuple(guest.name for guest in whole.guests),
        units=parts[shard.index - 1],
        named=any(kernel_of_argument(argument, whole.kernel_manifest.guests) for argument in request.arguments),
    )


def _check_paths(project: Project, arguments: Sequence[str]) -> None:
    """Refuse a path that does not exist, before a guest boots; raises ManifestError."""
    for argument in arguments:
        name = argument.partition("::")[0]
        if not (project.root / name).exists():
            raise ManifestError(f"{name}: no such file or folder below {project.root}")


def _kernel_names(project: Project, request: RunRequest, guests: Sequence[str]) -> tuple[str, ...]:
    """Return the kernels of ``--kernel``; without it those of the node ids on the command line; else the table's."""
    if request.kernels:
        return request.kernels
    named = [kernel_of_argument(argument, guests) for argument in request.arguments]
    return tuple(dict.fromkeys(name for name in named if name)) if named and all(named) else project.kernels
