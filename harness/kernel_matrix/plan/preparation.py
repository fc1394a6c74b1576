"""From a run's request to what is booted: kernels, images, objects, accelerator, slots."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from kernel_matrix import images
from kernel_matrix.config import manifest, options
from kernel_matrix.images import RootImage
from kernel_matrix.objects import build
from kernel_matrix.plan import evidence, provisioning
from kernel_matrix.plan.bpf import compiling
from kernel_matrix.plan.guest_list import GuestList, RunRequest, list_guests, pieces
from kernel_matrix.plan.sharding import Part, Unit
from kernel_matrix.relay import accelerator, client, payload
from kernel_matrix.relay.job import Job
from kernel_matrix.relay.saved import snapshots
from kernel_matrix.report.run_folder import KernelFacts, RunDirectory, RunFacts, notes
from kernel_matrix.results import baseline
from kernel_matrix.results.baseline import Expectation
from kernel_matrix.results.comparison import Scope
from kernel_matrix.results.evidence import ObjectEvidence
from kernel_matrix.shared import wire
from kernel_matrix.shared.bpf.object_table import ObjectTable
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.errors import ImageError
from kernel_matrix.shared.outcomes.features import VARIANT, GuestFacts
from kernel_matrix.shared.project import Command, Program, Project
from kernel_matrix.vm import slots
from kernel_matrix.vm.boot_spec import Accelerator, BootSpec
from kernel_matrix.vm.ending import ENDING

#: seconds from QEMU's start to the guest's first output: three to six under emulation on an idle machine, plus the
#: agent's imports; the limit leaves room for a machine under heavy load
_BOOT_TIMEOUT = {Accelerator.KVM: 60.0, Accelerator.TCG: 240.0}


@dataclass(frozen=True, slots=True)
class PlannedGuest:
    """One kernel that will be booted, with its own command line or with a variant of it."""

    #: such as ``6.1`` or ``6.1+lockdown_integrity``
    kernel: str
    release: str
    features: frozenset[str]
    #: the Job as JSON, for the relay
    job_path: Path
    #: where the relay writes how the guest ended
    ending_path: Path
    #: as in `ListedGuest`
    arguments: tuple[str, ...] = ()
    #: as in `GuestFacts`
    loaders: Mapping[str, str] = field(default_factory=dict, hash=False)

    def of_worker(self, worker: WorkerId) -> PlannedGuest:
        """Return the guest of another worker of this kernel: its files are in the same folder."""
        if worker.number == 1:
            return self
        job, ending = worker_files(self.job_path.parent, worker)
        return replace(self, job_path=job, ending_path=ending)

    def relay(self, python: str = sys.executable) -> list[str]:
        """Return the command that starts its relay with that Python."""
        return client.command(self.job_path, self.ending_path, python)


def worker_files(folder: Path, worker: WorkerId) -> tuple[Path, Path]:
    """Return the files of a worker: its Job, and the Ending that its relay writes."""
    return folder / f"{worker}.json", folder / f"{worker}{ENDING}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run has to know before its first guest."""

    guests: tuple[PlannedGuest, ...]
    #: where the relays write how their guests started and ended
    folder: Path
    #: kernel -> why its image is unavailable; red in the matrix
    missing: dict[str, str]
    all_features: frozenset[str]
    #: every kernel of the manifest and its features
    all_kernels: dict[str, frozenset[str]]
    facts: RunFacts
    notes: tuple[str, ...]
    #: the programs that the project ships
    programs: tuple[Program, ...] = ()
    #: every loader of the project's table
    all_loaders: tuple[str, ...] = ()
    #: the folder of the programs' sources, relative to the project
    sources: str = "bpf"
    #: what the table says of objects
    objects: ObjectTable = field(default_factory=ObjectTable)
    #: returns the objects of the facts with their sources; it takes longer than guests should wait for
    read_objects: Callable[[], tuple[ObjectEvidence, ...]] = tuple
    #: the commands of the table
    commands: tuple[Command, ...] = ()
    #: kernel -> what the run is compared with, and how strictly
    baseline: Mapping[str, Expectation] = field(default_factory=dict)
    scope: Scope = field(default_factory=Scope)
    #: this shard of the run, None for a whole run; a shard may have no guests
    part: Part | None = None
    #: the seconds of the units that further guests of a kernel may run; empty: there are no further guests
    weights: Mapping[Unit, float] = field(default_factory=dict)
    #: file -> the folder that it is not divided from, where there is one
    piece_paths: Mapping[str, str] = field(default_factory=dict)

    def guest_facts(self, guest: PlannedGuest) -> GuestFacts:
        """Return what the guest is to know of its kernel and of the project."""
        return GuestFacts(
            guest.kernel,
            guest.features,
            self.all_features,
            self.all_kernels,
            self.programs,
            guest.loaders,
            self.all_loaders,
            self.sources,
            self.objects,
            self.commands,
        )

    def piece_path(self, file: str) -> str:
        """Return the file or folder whose tests run in one guest with the file's."""
        return self.piece_paths.get(file, file)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one machine boots of a run; the paths are on that machine."""

    guests: tuple[PlannedGuest, ...]
    #: as in `Plan`
    folder: Path
    missing: dict[str, str] = field(default_factory=dict)
    #: the accelerator and why it was chosen
    accelerator: str = ""
    #: guests at once
    at_once: int = 0
    kernels: tuple[KernelFacts, ...] = ()
    #: lines about what was compiled in guests
    compiled: tuple[str, ...] = ()
    #: as in `Document`; those of this machine without their sources
    objects: tuple[ObjectEvidence, ...] = ()


def saved_folder() -> Path:
    """Return the folder of this machine's saved guests."""
    return images.cache_dir() / "snapshots"


def saved_guests() -> str:
    """Describe this machine's saved guests: how many, and what they take of the disk."""
    return snapshots.describe(saved_folder())


def prepare(project: Project, request: RunRequest, run: RunDirectory, *, say: Callable[[str], None]) -> Plan:
    """Prepare a run whose guests are on this machine; raises HarnessError."""
    listed = list_guests(project, request)
    prepared = prepare_guests(project, request, listed, run, say=say) if listed.guests else Prepared((), run.path)
    return plan(project, request, listed, prepared)


def plan(project: Project, request: RunRequest, listed: GuestList, prepared: Prepared) -> Plan:
    """Return the plan of a run from its prepared guests."""
    left_out = tuple(dict.fromkeys(_left_out(prepared)))
    weights, piece_paths = pieces(project, listed, request) if request.divided else ({}, {})
    return Plan(
        guests=prepared.guests,
        folder=prepared.folder,
        missing=prepared.missing,
        all_features=frozenset(feature.name for feature in listed.kernel_manifest.features),
        all_kernels=listed.kernel_manifest.guests,
        facts=RunFacts(
            accelerator=prepared.accelerator,
            guests=prepared.at_once,
            arguments=request.words,
            whole=request.whole,
            shard=str(request.shard or ""),
            kernels=prepared.kernels,
            notes=(*left_out, *prepared.compiled),
            loaders=request.loaders,
            left_out=tuple(
                name for name in request.loaders if any(guest.loaders.get(name) for guest in prepared.guests)
            ),
            objects=prepared.objects,
            configuration=evidence.of_project(project),
        ),
        notes=(*notes(prepared.kernels), *left_out),
        programs=project.programs,
        all_loaders=project.all_loaders,
        sources=project.relative(project.sources or project.root / "bpf"),
        objects=project.object_table,
        read_objects=partial(evidence.with_sources, project, prepared.objects),
        commands=project.commands,
        baseline=baseline.read(request.baseline or project.matrix_baselines),
        scope=_scope(project, request, listed),
        part=listed.part,
        weights=weights,
        piece_paths=piece_paths,
    )


def _left_out(prepared: Prepared) -> Iterator[str]:
    """Yield a line for each loader that a machine lacks."""
    for guest in prepared.guests:
        yield from (f"left out: {why}" for why in guest.loaders.values() if why)


def _scope(project: Project, request: RunRequest, listed: GuestList) -> Scope:
    """Return how strictly the run is compared; kernels of another manifest need no baseline."""
    if request.manifest is None:
        return manifest.gate(project, listed.kernel_manifest)
    return replace(listed.kernel_manifest.gate, kernels=manifest.gate(project, manifest.load(project.images)).kernels)


def prepare_guests(
    project: Project, request: RunRequest, listed: GuestList, run: RunDirectory, *, say: Callable[[str], None]
) -> Prepared:
    """Build the objects, fetch the images, choose the accelerator; raises HarnessError.

    A kernel whose image is unavailable does not stop the others; without any image the run fails.
    """
    provisioning.check_carried(request.carried)
    built = build.build_all(project)
    provisioning.check_room(project)
    programs, loaders = provisioning.loaders(project, request, say)
    root_image = images.root_image(listed.kernel_manifest)
    planned, missing = provisioning.with_images(listed, request, say=say)
    planned = [
        provisioning.with_headers(project, guest, listed.kernel_manifest, request, loaders, say) for guest in planned
    ]
    if not planned:
        raise ImageError("; ".join(f"{name}: {why}" for name, why in missing.items()))
    folder = Path(tempfile.mkdtemp(prefix="guests-", dir=run.path))
    planned = provisioning.with_needs_of_objects(project, planned, listed.kernel_manifest, folder, say)
    jobs = _Jobs(project, root_image, run, request, programs)
    choice = accelerator.choose(lambda kind: jobs.probe(planned[0], kind), images.cache_dir(), again=request.ask_again)
    count = request.guests or slots.guests_at_once(
        cores=os.cpu_count() or 1,
        emulated=choice.accelerator is Accelerator.TCG,
        free_mib=slots.free_memory_mib(Path("/proc/meminfo").read_text()),
        memory_mib=max(project.guest.memory_mib, *(guest.memory_mib for guest in planned)),
    )
    if not request.divided:
        count = min(count, len(planned))
    at_once = f"{'one guest' if count == 1 else f'{count} guests'} at once"
    say("; ".join(filter(None, (choice.why, choice.note, at_once))))
    slot_files = slots.make(folder, count)
    machine = accelerator.machine(choice.accelerator)
    guest_jobs = [(guest, jobs.of(guest, choice.accelerator, slot_files, machine)) for guest in planned]
    listed_jobs = [(guest.listed, job) for guest, job in guest_jobs]
    compiled_notes = compiling.ahead(compiling.needed(project, request, listed_jobs, folder), project.root, say)
    guests = []
    for guest, job in guest_jobs:
        for number in range(1, count + 1):
            worker = WorkerId(job.kernel, number)
            wire.write(worker_files(folder, worker)[0], replace(job, console=run.console(str(worker))))
        path, ending = worker_files(folder, WorkerId(job.kernel))
        listed_guest = guest.listed
        guests.append(
            PlannedGuest(
                listed_guest.name,
                guest.image.release,
                listed_guest.features,
                path,
                ending,
                listed_guest.arguments,
                guest.loaders,
            )
        )
    facts = [
        KernelFacts(
            guest.listed.name,
            image.release,
            image.version,
            image.notes,
            image.config_digest,
            evidence.of_guest(image, root_image, programs),
        )
        for guest in planned
        for image in [guest.image]
    ]
    objects = evidence.of_objects(project, built, [guest.kernel for guest in guests])
    return Prepared(tuple(guests), folder, missing, choice.why, count, tuple(facts), compiled_notes, objects)


@dataclass(frozen=True, slots=True)
class _Jobs:
    """The jobs of the run's relays."""

    project: Project
    root: RootImage
    run: RunDirectory
    request: RunRequest
    #: the loaders' programs by their names
    programs: Mapping[str, Path] = field(default_factory=dict)

    def probe(self, guest: provisioning.Guest, kind: Accelerator) -> Job:
        """Return the job of a boot that tests whether guests run with an accelerator."""
        return self._job(guest, kind, ())

    def of(self, guest: provisioning.Guest, kind: Accelerator, slot_files: tuple[Path, ...], machine: str) -> Job:
        """Return a guest's job, with a snapshot unless every guest must boot."""
        job = self._job(guest, kind, slot_files)
        request = self.request
        if request.cold:
            return job
        saved = (saved_folder(), snapshots.key(job.boot, machine))
        if request.ask_again:
            snapshots.ask_again(*saved)
        # few tests run on a variant: saving its worker pays off only if it is used again
        worker = "again" if request.worker == "whole" and VARIANT in job.kernel else request.worker
        return replace(job, snapshot=saved, worker="always" if worker == "whole" else worker)

    def _job(self, guest: provisioning.Guest, kind: Accelerator, slot_files: tuple[Path, ...]) -> Job:
        request, image = self.request, guest.image
        carried = None if request.carried is None else request.carried.absolute()
        return Job(
            kernel=guest.listed.name,
            boot=BootSpec(
                image.vmlinuz,
                image.modules,
                self.root.path,
                kind,
                memory_mib=max(self.project.guest.memory_mib, guest.memory_mib),
                append=guest.listed.append,
                headers=guest.headers,
            ),
            payload=payload.of_project(
                self.project,
                with_cache=request.with_cache,
                carried=carried,
                programs=self.programs,
                compiled_by=_compiler(self.root, guest),
                modules=guest.modules,
                config=image.config if self.project.objects or self.project.commands else None,
            ),
            console=self.run.console(guest.listed.name),
            slots=slot_files,
            boot_timeout=request.boot_timeout or _BOOT_TIMEOUT[kind],
            vng=Path(sys.executable).with_name("vng"),
            silence_timeout=request.silence,
            patience=guest.listed.patience,
            worker_kind=request.worker_kind,
            rehearsal=options.rehearsal_arguments(self.project) if request.rehearsed else (),
        )


def _compiler(root: RootImage, guest: provisioning.Guest) -> Path | None:
    """Return the cache's folder of what guests with the same compiler and headers compile; None for the others."""
    if guest.headers is None:
        return None
    # each is in a folder named by its content; bcc and LLVM are in the root image
    kernel = guest.image.vmlinuz.parents[1].name
    folder = images.compiled_dir() / images.digest(
        [root.digest, guest.headers.parent.name, kernel, guest.image.release]
    )
    images.used(folder)
    return folder
