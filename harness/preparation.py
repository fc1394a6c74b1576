"""From what the user wished to what will be booted: kernels, images, objects, accelerator, slots."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness import accelerator, images, manifest, objects, project, selection, slots, snapshots, wire
from harness.errors import ImageError, ManifestError
from harness.expect import kernel_of_argument
from harness.features import VARIANT
from harness.images import KernelImage, RootImage
from harness.results import KernelFacts, RunDirectory, RunFacts
from harness.vm import Accelerator, GuestSpec

#: seconds from QEMU's start to the guest's first word: three to six under emulation on an idle machine, and the
#: imports that the agent does first; the limit is for a machine that does ten other things
_BOOT_TIMEOUT = {Accelerator.KVM: 60.0, Accelerator.TCG: 240.0}
#: what of a guest's memory a carried folder may take: it is there twice while it is unpacked
_MOST_CARRIED_MIB = 96


@dataclass(frozen=True, slots=True)
class Wishes:
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
    #: as in `GuestSpec`; "whole": always, but for command lines of tests' own
    worker: Literal["never", "again", "always", "whole"] = "never"
    worker_kind: str = ""
    with_cache: bool = False
    #: pytest's options that narrow the choice of tests: ``-k``, ``-m``, ``--lf``
    options: tuple[str, ...] = ()
    #: the whole command line, as pytest was given it
    words: tuple[str, ...] = ()
    #: a folder of the user's own, carried into each guest
    carried: Path | None = None


@dataclass(frozen=True, slots=True)
class PlannedGuest:
    """One kernel that will be booted, with its own command line or with a variant of it."""

    #: such as ``6.1`` or ``6.1+lockdown_integrity``
    kernel: str
    release: str
    features: frozenset[str]
    #: the GuestSpec as JSON, for the relay
    spec_path: Path
    #: where the relay says how the guest ended
    ending_path: Path
    #: what it collects instead of what the command line says: the files with tests for its variant; empty: no other
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run needs to know before its first guest."""

    guests: tuple[PlannedGuest, ...]
    #: where the relays leave how their guests came up and ended
    folder: Path
    #: kernel -> why its image is not to be had; each is red in the matrix
    missing: dict[str, str]
    all_features: frozenset[str]
    #: every kernel of the manifest and its features
    all_kernels: dict[str, frozenset[str]]
    facts: RunFacts
    notes: tuple[str, ...]


def prepare(root: Path, wishes: Wishes, run: RunDirectory, *, say: Callable[[str], None]) -> Plan:
    """Build the objects, get the images, choose the accelerator; raises HarnessError.

    A kernel whose image is not to be had does not stop the others; when none is left, that is the error.
    """
    if wishes.guests is not None and wishes.guests < 1:
        raise ManifestError(f"--guests {wishes.guests}: at least one guest is needed")
    _check_paths(root, wishes.arguments)
    _check_carried(wishes.carried)
    known = manifest.load(wishes.manifest or root / "vmimages")
    named = _kernel_names(wishes, list(known.guests))
    chosen = manifest.select(known, [name.partition(VARIANT)[0] for name in named])
    wanted = _Wanted.of(root, known, wishes, named)
    objects.build_all()
    root_image = images.root_image(known, root)
    found, missing = _kernel_images(known, chosen, locked=wishes.locked, say=say)
    if not found:
        raise ImageError("; ".join(f"{name}: {why}" for name, why in missing.items()))
    folder = Path(tempfile.mkdtemp(prefix="guests-", dir=run.path))
    planned = [each for kernel, image in found for each in wanted.guests(kernel, image)]
    # the long ones begin first: a kernel's own tests are many, those of a command line few
    planned.sort(key=lambda each: VARIANT in each.name)
    if not planned:
        raise ManifestError(f"{' '.join(named)}: no selected test asks for it, or the kernel is so anyway")
    specs = [_spec(each, root_image, root=root, run=run, wishes=wishes) for each in planned]
    choice = accelerator.choose(replace(specs[0], slots=slots.make(folder, 1)), images.cache_dir())
    count = wishes.guests or slots.guests_at_once(
        cores=os.cpu_count() or 1,
        emulated=choice.accelerator is Accelerator.TCG,
        free_mib=slots.free_memory_mib(Path("/proc/meminfo").read_text()),
        memory_mib=specs[0].memory_mib,
    )
    count = min(count, len(specs))
    say(f"{choice.why}; {count} of {len(specs)} guests at once")
    held = slots.make(folder, count)
    machine = accelerator.machine(choice.accelerator)
    guests = []
    for each, spec in zip(planned, specs, strict=True):
        path = folder / f"{each.name}.json"
        wire.write(path, _completed(spec, choice.accelerator, held, wishes, machine))
        ending = folder / f"{each.name}.ending.json"
        guests.append(PlannedGuest(each.name, each.image.release, each.features, path, ending, each.arguments))
    return Plan(
        guests=tuple(guests),
        folder=folder,
        missing=missing,
        all_features=frozenset(feature.name for feature in known.features),
        all_kernels=known.guests,
        facts=RunFacts(
            accelerator=choice.why,
            guests=count,
            arguments=wishes.words,
            kernels=tuple(
                KernelFacts(each.name, image.release, image.version, image.notes, image.config_digest)
                for each in planned
                for image in [each.image]
            ),
        ),
        notes=tuple(note for _, image in found for note in image.notes),
    )


@dataclass(frozen=True, slots=True)
class _Guest:
    """A kernel's image and the command line that it is booted with."""

    name: str
    image: KernelImage
    features: frozenset[str]
    append: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which guests of a kernel the run needs: its own, and one for each variant that a selected test asks for."""

    variants: tuple[manifest.Variant, ...]
    #: names of guests with variants that have a selected test
    selected: frozenset[str]
    #: what the command line names, where it names guests with variants; empty: whatever is selected
    named: frozenset[str]
    #: file -> the variants that its tests ask for
    files: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, root: Path, known: manifest.Manifest, wishes: Wishes, named: Sequence[str]) -> _Wanted:
        """Find it out; raises ManifestError for a name that is not known, and for a variant that no test asks for."""
        for name in named:
            if VARIANT in name and name not in known.guests:
                names = ", ".join(variant.name for variant in known.variants)
                raise ManifestError(f"unknown kernel {name!r} (a kernel's name, +, and one of: {names or 'none'})")
        tests = selection.Selection(wishes.arguments, wishes.options)
        files = selection.declared(root, tests)
        selection.check(root, files, [variant.name for variant in known.variants])
        possible = {
            variant.of(kernel): variant.name
            for kernel in manifest.select(known, [name.partition(VARIANT)[0] for name in named])
            for variant in known.variants
            if variant.changes(kernel)
        }
        selected = selection.guests(root, tests, possible)
        exact = {name for name in named if VARIANT in name}
        if exact and (others := [name for name in named if VARIANT not in name]):
            exact |= {kernel.name for kernel in manifest.select(known, others)}
        return cls(known.variants, selected, frozenset(exact), files)

    def guests(self, kernel: manifest.Kernel, image: KernelImage) -> Iterator[_Guest]:
        """Yield the guests that a kernel is booted as."""
        if not self.named or kernel.name in self.named:
            yield _Guest(kernel.name, image, frozenset(kernel.features))
        for variant in self.variants:
            name = variant.of(kernel)
            if name in self.selected and (not self.named or self.named & {name, kernel.name}):
                files = tuple(file for file, variants in self.files.items() if variant.name in variants)
                yield _Guest(name, image, variant.features(kernel), variant.append, files)


def _completed(spec: GuestSpec, chosen: Accelerator, held: tuple[Path, ...], wishes: Wishes, machine: str) -> GuestSpec:
    """Add to a spec what is known once the accelerator is."""
    timeout = wishes.boot_timeout or _BOOT_TIMEOUT[chosen]
    spec = replace(spec, accelerator=chosen, slots=held, boot_timeout=timeout)
    if wishes.cold:
        return spec
    saved = (images.cache_dir() / "snapshots", snapshots.key(spec, machine))
    # few tests run with a command line of their own: such a guest's worker is worth its place only if it is used often
    worker = "again" if wishes.worker == "whole" and VARIANT in spec.kernel else wishes.worker
    return replace(spec, snapshot=saved, worker="always" if worker == "whole" else worker)


def _check_paths(root: Path, arguments: Sequence[str]) -> None:
    """Find out before a guest boots that a path does not exist."""
    for argument in arguments:
        name = argument.partition("::")[0]
        if not (root / name).exists():
            raise ManifestError(f"{name}: no such file or folder below {root}")


def _check_carried(folder: Path | None) -> None:
    """Find out before a guest boots that a folder cannot be carried into it."""
    if folder is None:
        return
    if not folder.is_dir():
        raise ManifestError(f"--carry {folder}: no such folder")
    if (mib := project.size(folder) >> 20) > _MOST_CARRIED_MIB:
        raise ManifestError(f"--carry {folder}: {mib} MiB; a guest has room for {_MOST_CARRIED_MIB} MiB")


def _kernel_names(wishes: Wishes, known: Sequence[str]) -> tuple[str, ...]:
    """Return the kernels of ``--kernel``; without it those that the node ids on the command line name, if any."""
    if wishes.kernels:
        return wishes.kernels
    named = [kernel_of_argument(argument, known) for argument in wishes.arguments]
    return tuple(dict.fromkeys(name for name in named if name)) if all(named) else ()


def _kernel_images(
    known: manifest.Manifest, kernels: Sequence[manifest.Kernel], *, locked: bool, say: Callable[[str], None]
) -> tuple[list[tuple[manifest.Kernel, KernelImage]], dict[str, str]]:
    found = []
    missing = {}
    for kernel in kernels:
        try:
            image = images.kernel_image(known, kernel, locked_only=locked)
        except ImageError as error:
            missing[kernel.name] = str(error)
            say(f"{kernel.name}: {error}")
        else:
            found.append((kernel, image))
            for note in image.notes:
                say(f"{kernel.name}: {note}")
    return found, missing


def _spec(guest: _Guest, root_image: RootImage, *, root: Path, run: RunDirectory, wishes: Wishes) -> GuestSpec:
    return GuestSpec(
        kernel=guest.name,
        vmlinuz=guest.image.vmlinuz,
        modules=guest.image.modules,
        append=guest.append,
        root=root_image.path,
        accelerator=Accelerator.TCG,
        console=run.console(guest.name),
        project=root,
        slots=(),
        boot_timeout=0,
        vng=Path(sys.executable).with_name("vng"),
        silence_timeout=wishes.silence,
        with_cache=wishes.with_cache,
        worker_kind=wishes.worker_kind,
        carried=None if wishes.carried is None else wishes.carried.absolute(),
    )
