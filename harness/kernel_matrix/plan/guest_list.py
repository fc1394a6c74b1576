"""Which guests a run needs and which files each is for: decided before anything is fetched or booted.

From the command line, the manifest and the project's files alone, so that every machine decides the same.
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
from kernel_matrix.plan.sharding import Part, Shard, Unit
from kernel_matrix.relay import payload
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.expect import kernel_of_argument
from kernel_matrix.shared.features import VARIANT, plain_kernel
from kernel_matrix.shared.project import Project


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the command line says."""

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
    #: what earlier runs have concluded and not proven counts no longer (`kernel_matrix.shared.conclusions`)
    ask_again: bool = False
    #: what is expected; None: the project's own
    baseline: Path | None = None
    #: as in `Job`; "whole": always, but for command lines of tests' own
    worker: Literal["never", "again", "always", "whole"] = "never"
    #: as in `Job`
    worker_kind: str = ""
    #: whether guests may be prepared for the project's tests
    rehearsed: bool = False
    with_cache: bool = False
    #: pytest's options that narrow the choice of tests: ``-k``, ``-m``, ``--lf``
    options: tuple[str, ...] = ()
    #: the whole command line, as pytest was given it
    words: tuple[str, ...] = ()
    #: whether it leaves no test out
    whole: bool = False
    #: the part of the run that is wanted; None: all of it
    shard: Shard | None = None
    #: a folder of the user's own, carried into each guest
    carried: Path | None = None
    #: whether a kernel's tests may be divided between several guests at once
    divided: bool = False
    #: guest -> its files as in `ListedGuest`: what another machine has decided; None: it is decided here
    dealt: dict[str, tuple[str, ...]] | None = None


def without_tests(project: Project, kernels: Iterable[str]) -> tuple[str, ...]:
    """Return the `RunRequest.arguments` of a run that has no tests of its own.

    A kernel's other command lines are those that tests ask for.
    """
    return project.tests if any(VARIANT in name for name in kernels) else ()


@dataclass(frozen=True, slots=True)
class GuestList:
    """What a run needs."""

    known: manifest.Manifest
    #: as the command line has them
    named: tuple[str, ...]
    #: kernels in the manifest's order, and what each is booted as
    kernels: tuple[tuple[manifest.Kernel, tuple[ListedGuest, ...]], ...]
    #: what the run is a part of, None for a whole one
    part: Part | None = None

    @property
    def guests(self) -> tuple[ListedGuest, ...]:
        """All guests; the long ones begin first: a kernel's own tests are many, those of a command line few."""
        guests = [guest for _, listed in self.kernels for guest in listed]
        return tuple(sorted(guests, key=lambda guest: VARIANT in guest.name))


def list_guests(project: Project, request: RunRequest) -> GuestList:
    """Find out what the command line asks for; raises ManifestError."""
    if request.guests is not None and request.guests < 1:
        raise ManifestError(f"--guests {request.guests}: at least one guest is needed")
    _check_paths(project, request.arguments)
    known = images.load(request.manifest or project.images)
    named = _kernel_names(request, list(known.guests))
    chosen = manifest.select(known, [plain_kernel(name) for name in named])
    wanted = Wanted.of(project, known, request, named)
    listed = GuestList(known, named, _booted(wanted, chosen))
    if not listed.guests:
        raise ManifestError(f"{' '.join(named)}: no selected test asks for it, or the kernel is so anyway")
    if request.shard is None:
        return listed
    part = part_of(project, listed, request, request.shard)
    own = {kernel: part.files(kernel) for kernel in part.kernels if part.files(kernel)}
    return replace(listed, kernels=_booted(replace(wanted, dealt=own), chosen), part=part)


def _booted(
    wanted: Wanted, kernels: Sequence[manifest.Kernel]
) -> tuple[tuple[manifest.Kernel, tuple[ListedGuest, ...]], ...]:
    return tuple((kernel, guests) for kernel in kernels if (guests := tuple(wanted.guests_of(kernel))))


@dataclass(frozen=True, slots=True)
class ListedGuest:
    """One of the command lines that a kernel is booted with, and what is run then."""

    name: str
    features: frozenset[str]
    append: tuple[str, ...] = ()
    #: all that it collects of what the command line says: the files of its shard, or with tests for its variant;
    #: empty: no other
    arguments: tuple[str, ...] = ()
    patience: float = 1.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which guests of a kernel the run needs: its own, and one for each variant that a selected test asks for."""

    variants: tuple[manifest.Variant, ...]
    #: names of guests with variants that have a selected test
    selected: frozenset[str]
    #: what the command line names, where it names guests with variants; empty: whatever is selected
    named: frozenset[str]
    #: file -> the variants that its tests ask for
    files: Mapping[str, frozenset[str]]
    #: guest -> its files, of those that are wanted; None: all
    dealt: Mapping[str, tuple[str, ...]] | None = None

    @classmethod
    def of(cls, project: Project, known: manifest.Manifest, request: RunRequest, named: Sequence[str]) -> Wanted:
        """Find it out; raises ManifestError for a name that is not known, and for a variant that no test asks for."""
        for name in named:
            if VARIANT in name and name not in known.guests:
                names = ", ".join(variant.name for variant in known.variants)
                raise ManifestError(f"unknown kernel {name!r} (a kernel's name, +, and one of: {names or 'none'})")
        tests = selection.Selection(request.arguments, request.options)
        files = selection.declared(project.root, tests)
        selection.check(project, files, [variant.name for variant in known.variants])
        possible = {
            variant.of(kernel): variant.name
            for kernel in manifest.select(known, [plain_kernel(name) for name in named])
            for variant in known.variants
            if variant.changes(kernel)
        }
        selected = selection.guests(project, tests, possible)
        exact = {name for name in named if VARIANT in name}
        if exact and (others := [name for name in named if VARIANT not in name]):
            exact |= {kernel.name for kernel in manifest.select(known, others)}
        return cls(known.variants, selected, frozenset(exact), files, request.dealt)

    def guests_of(self, kernel: manifest.Kernel) -> Iterator[ListedGuest]:
        """Yield what a kernel is booted as, and the files that each is for."""
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
    """Say which test files there are for which guest, and how long each takes."""
    guests = {guest.name: guest.arguments for guest in listed.guests}
    units = sharding.units(
        guests, request.arguments, listed.known.guests, lambda each: selection.test_files(project.root, each)
    )
    return sharding.weigh(units, sharding.read_durations(project.durations))


def pieces(project: Project, listed: GuestList, request: RunRequest) -> tuple[dict[Unit, float], dict[str, str]]:
    """Say what guests beside a kernel's own may run, and of each file what it is not divided from."""
    weights = weigh(project, listed, request)
    if listed.part is not None:
        weights = {unit: seconds for unit, seconds in weights.items() if unit in listed.part.units}
    return weights, {unit.file: selection.whole(project.root, unit.file) for unit in weights}


def part_of(project: Project, whole: GuestList, request: RunRequest, shard: Shard) -> Part:
    """Divide the whole run and return what of it this shard is; raises ManifestError."""
    if "--lf" in request.options:
        raise ManifestError("--shard: what failed last is another thing on every machine; without --lf, --last-failed")
    folder = cache(lambda file: selection.whole(project.root, file))
    parts = sharding.divide(weigh(project, whole, request), shard.count, folder)
    return Part(
        shard=shard,
        division=sharding.digest(parts),
        project=payload.digest(project),
        selection=(*request.arguments, *request.options),
        kernels=tuple(guest.name for guest in whole.guests),
        units=parts[shard.index - 1],
        named=any(kernel_of_argument(argument, whole.known.guests) for argument in request.arguments),
    )


def _check_paths(project: Project, arguments: Sequence[str]) -> None:
    """Find out before a guest boots that a path does not exist."""
    for argument in arguments:
        name = argument.partition("::")[0]
        if not (project.root / name).exists():
            raise ManifestError(f"{name}: no such file or folder below {project.root}")


def _kernel_names(request: RunRequest, known: Sequence[str]) -> tuple[str, ...]:
    """Return the kernels of ``--kernel``; without it those that the node ids on the command line name, if any."""
    if request.kernels:
        return request.kernels
    named = [kernel_of_argument(argument, known) for argument in request.arguments]
    return tuple(dict.fromkeys(name for name in named if name)) if all(named) else ()
