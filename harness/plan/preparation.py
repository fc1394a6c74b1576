"""From what the user wished to what will be booted: kernels, images, objects, accelerator, slots."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import images
from harness.config import manifest
from harness.images import KernelImage, RootImage
from harness.objects import build
from harness.plan.outline import Form, Outline, Wishes, outline, pieces
from harness.plan.sharding import Part, Unit
from harness.relay import accelerator, project, snapshots
from harness.report.run_folder import KernelFacts, RunDirectory, RunFacts, notes
from harness.results import baseline
from harness.results.baseline import Expectation
from harness.results.comparison import Scope
from harness.shared import wire
from harness.shared.ending import ENDING
from harness.shared.errors import ImageError, ManifestError
from harness.shared.features import VARIANT
from harness.shared.lanes import Lane
from harness.vm import slots
from harness.vm.guest_spec import Accelerator, GuestSpec

#: seconds from QEMU's start to the guest's first word: three to six under emulation on an idle machine, and the
#: imports that the agent does first; the limit is for a machine that does ten other things
_BOOT_TIMEOUT = {Accelerator.KVM: 60.0, Accelerator.TCG: 240.0}
#: what of a guest's memory a carried folder may take: it is there twice while it is unpacked
_MOST_CARRIED_MIB = 96


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
    #: all that it collects of what the command line says: the files of its shard, or with tests for its variant;
    #: empty: no other
    arguments: tuple[str, ...] = ()

    def of_lane(self, lane: Lane) -> PlannedGuest:
        """Return the same for a guest of another lane of its kernel: its files lie beside this one's."""
        if lane.number == 1:
            return self
        spec, ending = lane_files(self.spec_path.parent, lane)
        return replace(self, spec_path=spec, ending_path=ending)

    def relay(self, python: str = sys.executable) -> list[str]:
        """Return the command of its relay, with that Python."""
        return [python, "-m", "harness.relay.serve", str(self.spec_path), str(self.ending_path)]


def lane_files(folder: Path, lane: Lane) -> tuple[Path, Path]:
    """Return where a lane's GuestSpec is, and where its relay says how a guest ended."""
    return folder / f"{lane}.json", folder / f"{lane}{ENDING}"


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
    #: what the run is compared with, kernel by kernel, and how strictly
    baseline: Mapping[str, Expectation] = field(default_factory=dict)
    scope: Scope = field(default_factory=Scope)
    #: what the run is a part of, None for a whole one; a part may have no guests
    part: Part | None = None
    #: what guests beside a kernel's own may run, in seconds; empty: there are none
    weights: Mapping[Unit, float] = field(default_factory=dict)
    #: file -> what it is not divided from, where that is not itself
    whole: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one machine boots of a run; the paths are its own."""

    guests: tuple[PlannedGuest, ...]
    #: as in `Plan`
    folder: Path
    missing: dict[str, str] = field(default_factory=dict)
    #: the accelerator and why it was chosen
    accelerator: str = ""
    #: guests at once
    at_once: int = 0
    kernels: tuple[KernelFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class _Guest:
    """What a kernel is booted as, and its image."""

    form: Form
    image: KernelImage


def prepare(root: Path, wishes: Wishes, run: RunDirectory, *, say: Callable[[str], None]) -> Plan:
    """Prepare a run whose guests are on this machine; raises HarnessError."""
    found = outline(root, wishes)
    prepared = ready(root, wishes, found, run, say=say) if found.forms else Prepared((), run.path)
    return plan(root, wishes, found, prepared)


def plan(root: Path, wishes: Wishes, found: Outline, prepared: Prepared) -> Plan:
    """Say what is known before the first guest."""
    weights, whole = pieces(root, found, wishes) if wishes.divided else ({}, {})
    return Plan(
        guests=prepared.guests,
        folder=prepared.folder,
        missing=prepared.missing,
        all_features=frozenset(feature.name for feature in found.known.features),
        all_kernels=found.known.guests,
        facts=RunFacts(
            accelerator=prepared.accelerator,
            guests=prepared.at_once,
            arguments=wishes.words,
            whole=wishes.whole,
            shard=str(wishes.shard or ""),
            kernels=prepared.kernels,
        ),
        notes=notes(prepared.kernels),
        baseline=baseline.read(wishes.baseline or root / baseline.FOLDER),
        scope=_scope(root, wishes, found),
        part=found.part,
        weights=weights,
        whole=whole,
    )


def _scope(root: Path, wishes: Wishes, found: Outline) -> Scope:
    """Return how strictly the run is compared: of another manifest's kernels the workflow runs none."""
    if wishes.manifest is None:
        return found.known.gate
    return replace(found.known.gate, kernels=manifest.load(root / "vmimages").gate.kernels)


def ready(root: Path, wishes: Wishes, found: Outline, run: RunDirectory, *, say: Callable[[str], None]) -> Prepared:
    """Build the objects, get the images, choose the accelerator; raises HarnessError.

    A kernel whose image is not to be had does not stop the others; when none is left, that is the error.
    """
    _check_carried(wishes.carried)
    build.build_all()
    root_image = images.root_image(found.known, root)
    planned, missing = _with_images(found, locked=wishes.locked, say=say)
    if not planned:
        raise ImageError("; ".join(f"{name}: {why}" for name, why in missing.items()))
    folder = Path(tempfile.mkdtemp(prefix="guests-", dir=run.path))
    specs = [_spec(each, root_image, root=root, run=run, wishes=wishes) for each in planned]
    probe = replace(specs[0], slots=slots.make(folder, 1))
    choice = accelerator.choose(probe, images.cache_dir(), again=wishes.ask_again)
    count = wishes.guests or slots.guests_at_once(
        cores=os.cpu_count() or 1,
        emulated=choice.accelerator is Accelerator.TCG,
        free_mib=slots.free_memory_mib(Path("/proc/meminfo").read_text()),
        memory_mib=specs[0].memory_mib,
    )
    if not wishes.divided:
        count = min(count, len(specs))
    at_once = f"{'one guest' if count == 1 else f'{count} guests'} at once"
    say("; ".join(filter(None, (choice.why, choice.note, at_once))))
    held = slots.make(folder, count)
    machine = accelerator.machine(choice.accelerator)
    guests = []
    for each, spec in zip(planned, specs, strict=True):
        completed = _completed(spec, choice.accelerator, held, wishes, machine)
        for number in range(1, count + 1):
            lane = Lane(spec.kernel, number)
            wire.write(lane_files(folder, lane)[0], replace(completed, console=run.console(str(lane))))
        path, ending = lane_files(folder, Lane(spec.kernel))
        form = each.form
        guests.append(PlannedGuest(form.name, each.image.release, form.features, path, ending, form.arguments))
    facts = [
        KernelFacts(each.form.name, image.release, image.version, image.notes, image.config_digest)
        for each in planned
        for image in [each.image]
    ]
    return Prepared(tuple(guests), folder, missing, choice.why, count, tuple(facts))


def _completed(spec: GuestSpec, chosen: Accelerator, held: tuple[Path, ...], wishes: Wishes, machine: str) -> GuestSpec:
    """Add to a spec what is known once the accelerator is."""
    timeout = wishes.boot_timeout or _BOOT_TIMEOUT[chosen]
    spec = replace(spec, accelerator=chosen, slots=held, boot_timeout=timeout)
    if wishes.cold:
        return spec
    saved = (images.cache_dir() / "snapshots", snapshots.key(spec, machine))
    if wishes.ask_again:
        snapshots.ask_again(*saved)
    # few tests run with a command line of their own: such a guest's worker is worth its place only if it is used often
    worker = "again" if wishes.worker == "whole" and VARIANT in spec.kernel else wishes.worker
    return replace(spec, snapshot=saved, worker="always" if worker == "whole" else worker)


def _check_carried(folder: Path | None) -> None:
    """Find out before a guest boots that a folder cannot be carried into it."""
    if folder is None:
        return
    if not folder.is_dir():
        raise ManifestError(f"--carry {folder}: no such folder")
    if (mib := project.size(folder) >> 20) > _MOST_CARRIED_MIB:
        raise ManifestError(f"--carry {folder}: {mib} MiB; a guest has room for {_MOST_CARRIED_MIB} MiB")


def _with_images(found: Outline, *, locked: bool, say: Callable[[str], None]) -> tuple[list[_Guest], dict[str, str]]:
    """Get the kernels' images; return the guests, in their order, and of the other kernels why there is none."""
    got: dict[str, KernelImage] = {}
    missing = {}
    for kernel, forms in found.kernels:
        try:
            image = images.kernel_image(found.known, kernel, locked_only=locked)
        except ImageError as error:
            missing[kernel.name] = str(error)
            say(f"{kernel.name}: {error}")
        else:
            got |= {form.name: image for form in forms}
            for note in image.notes:
                say(f"{kernel.name}: {note}")
    return [_Guest(form, got[form.name]) for form in found.forms if form.name in got], missing


def _spec(guest: _Guest, root_image: RootImage, *, root: Path, run: RunDirectory, wishes: Wishes) -> GuestSpec:
    return GuestSpec(
        kernel=guest.form.name,
        vmlinuz=guest.image.vmlinuz,
        modules=guest.image.modules,
        append=guest.form.append,
        root=root_image.path,
        accelerator=Accelerator.TCG,
        console=run.console(guest.form.name),
        project=root,
        slots=(),
        boot_timeout=0,
        vng=Path(sys.executable).with_name("vng"),
        silence_timeout=wishes.silence,
        patience=guest.form.patience,
        with_cache=wishes.with_cache,
        worker_kind=wishes.worker_kind,
        carried=None if wishes.carried is None else wishes.carried.absolute(),
    )
