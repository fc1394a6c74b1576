"""How fast the matrix is, against the plain way to run the same: both in one go, in turns.

Three questions: how long until a kernel's first test starts (the plain way, booted, restored), what a fresh guest costs
(for every test, and after a panic), and how long the whole run takes.
"""

from __future__ import annotations

import os
import platform
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.commands.bench import edit_loop, plain_run
from kernel_matrix.commands.bench.report import Report, Row, Start, Whole, markdown, start_line, whole_line
from kernel_matrix.plan import preparation
from kernel_matrix.plan.guest_list import RunRequest
from kernel_matrix.plan.preparation import Plan, PlannedGuest
from kernel_matrix.relay.job import Job
from kernel_matrix.relay.saved import snapshots
from kernel_matrix.report import run_folder
from kernel_matrix.report.run_folder import RunRecord
from kernel_matrix.results import document, matrix
from kernel_matrix.shared import atomic, wire
from kernel_matrix.shared.channel import console
from kernel_matrix.shared.channel.console import Phases
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes.cells import Outcome
from kernel_matrix.shared.outcomes.features import VARIANT
from kernel_matrix.shared.project import IN_PROCESS_LOADER, Project

#: what the panicking file finds: the kernel panics between two tests
_PANICKED = {"test_before": Outcome.PASS, "test_panic": Outcome.CRASH, "test_after": Outcome.PASS}
#: runs of everything after which nothing is saved any more; one more than that takes
_WARMING = 4
#: between two looks at the memory of a run: one reads about all processes of the machine, and takes from the guests
_MEMORY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Counts:
    """How often each is measured."""

    #: starts of each kind
    runs: int = 5
    #: runs of everything, each way
    whole: int = 1
    #: rounds of the edit loop
    loop: int = 3


def run(project: Project, kernels: Sequence[str], counts: Counts, say: Callable[[str], None]) -> Path:
    """Measure, write bench.json and bench.md beside the results, and return the latter; raises HarnessError."""
    if not (project.bench.file and project.bench.panic):
        raise ManifestError(f"{project.table}: bench: no file, keyword and panic are named, tests to time")
    record = run_folder.RunDirectory.create(project.results)
    plan = preparation.prepare(
        project,
        RunRequest(
            tuple(kernels), arguments=project.tests, guests=1, locked=False, silence=None, loaders=_loaders(project)
        ),
        record,
        say=say,
    )
    if plan.missing:
        raise HarnessError("; ".join(f"{name}: {why}" for name, why in plan.missing.items()))
    jobs = {guest: wire.decode(guest.job_path.read_bytes(), Job) for guest in plan.guests}
    # a kernel's own command line, or what was named instead; the matrix boots the others itself
    named = [job for job in jobs.values() if VARIANT not in job.kernel] or list(jobs.values())
    rows = []
    for job in named if counts.runs else ():
        rows.append(_row(project, job, plan, counts.runs))
        say(start_line(rows[-1]))
    loops = []
    for job in named if counts.loop else ():
        loops.append(edit_loop.measure(project, job.kernel, counts.loop))
        say("\n".join(edit_loop.markdown(loops[-1:])))
    wholes = []
    for _ in range(counts.whole):
        wholes.append(_whole(project, jobs, [job.kernel for job in named], plan))
        say(whole_line(wholes[-1], os.cpu_count() or 1))
    report = Report(
        machine=f"{os.cpu_count()} processors, {platform.machine()}, Linux {platform.release()}",
        cores=os.cpu_count() or 1,
        accelerator=plan.facts.accelerator,
        snapshots=preparation.saved_guests(),
        rows=tuple(rows),
        whole=tuple(wholes),
        loops=tuple(loops),
    )
    wire.write(project.results / "bench.json", report)
    path = project.results / "bench.md"
    atomic.write(path, markdown(report))
    return path


def _row(project: Project, job: Job, plan: Plan, runs: int) -> Row:
    kernel = ["--kernel", job.kernel]
    short = (project.bench.file, *(["-k", project.bench.keyword] if project.bench.keyword else []))
    plain, booted, restored, panic = [], [], [], []
    split: list[Phases] = []
    # a guest keeps the worker of one command line: what is restored is made anew before each measurement
    _warm(project.root, *kernel, *short)
    for _ in range(runs):
        alone = plain_run.run(job, plan, short)
        plain.append(Start(alone.first_test, alone.first_test_cpu))
        cold = _matrix(project.root, *kernel, "--cold", *short)
        booted.append(_start(cold, "cold"))
        split += filter(
            None, [console.phases((cold.folder / "console" / f"{job.kernel}.log").read_text("utf-8", "replace"))]
        )
        restored.append(_start(_matrix(project.root, *kernel, *short), "restored"))
    _warm(project.root, *kernel, panics=project.bench.panic)
    for _ in range(runs):
        panic += _gaps(_matrix(project.root, *kernel, panics=project.bench.panic))
    gaps = _gaps(_warm(project.root, *kernel, "--fresh", "test", project.bench.file))
    return Row(job.kernel, tuple(plain), tuple(booted), tuple(restored), tuple(gaps), tuple(panic), tuple(split))


def _start(run: _Run, how: str) -> Start:
    """Return how the run's one guest began; raises HarnessError when it is not one, or came up in another way."""
    guests = run.record.guests
    if [guest.how for guest in guests] != [how]:
        came = ", ".join(f"{guest.kernel} {guest.how} {guest.note}".strip() for guest in guests) or "none"
        raise HarnessError(f"one guest was to be {how}, there came: {came} ({run.folder})")
    (guest,) = guests
    if guest.first_test is None or guest.first_test_cpu is None:
        raise HarnessError(f"kernel {guest.kernel}: no test started ({run.folder})")
    return Start(guest.first_test, guest.first_test_cpu)


def _gaps(run: _Run) -> list[float]:
    """Return what lies between the run's guests; raises HarnessError when nothing does, or one was not restored."""
    gaps = [guest.gap for guest in run.record.guests if guest.gap is not None]
    guests = run.record.guests
    if not gaps or len(gaps) != len(guests) - 1 or any(guest.how != "restored" for guest in guests):
        came = ", ".join(f"{guest.how} {guest.note}".strip() for guest in guests) or "none"
        raise HarnessError(f"guests were to be restored one after another, there came: {came} ({run.folder})")
    return gaps


def _whole(project: Project, jobs: Mapping[PlannedGuest, Job], named: Sequence[str], plan: Plan) -> Whole:
    options = [("--kernel", kernel) for kernel in named] + [("--loader", loader) for loader in _loaders(project)]
    warm = _warm(project.root, *(word for option in options for word in option))
    if unfit := [guest for guest in warm.record.guests if guest.how != "restored"]:
        raise HarnessError(f"kernel {unfit[0].kernel}: its guest was not restored ({unfit[0].note})")
    # the same tests: a kernel's other command lines are boots of their own, of the files that ask for them
    plain = {
        job.kernel: plain_run.run(job, plan, [*(guest.arguments or project.tests), "--junitxml=/tmp/junit.xml", "-q"])
        for guest, job in jobs.items()
    }
    return Whole(
        plain=round(sum(run.total for run in plain.values()), 1),
        warm=round(warm.seconds, 1),
        tests_cpu=round(sum(guest.tests_cpu or 0.0 for guest in warm.record.guests), 1),
        memory_mib=warm.memory_mib,
        summaries=tuple(f"{kernel}: {run.summary}" for kernel, run in plain.items()),
    )


def _loaders(project: Project) -> tuple[str, ...]:
    """Return the loaders of the project that the plain way has: it brings no other loader's program."""
    return tuple(loader for loader in project.all_loaders if loader == IN_PROCESS_LOADER)


def _warm(project: Path, *arguments: str, panics: str = "") -> _Run:
    """Run the matrix until a run finds all that it restores: the third one, if nothing of it was there.

    The first saves the kernels' guests, and a worker where the same was run before; the second the other workers.
    """
    saved = preparation.saved_folder()
    for _ in range(_WARMING):
        before = snapshots.contents(saved)
        warm = _matrix(project, *arguments, panics=panics)
        if snapshots.contents(saved) == before:
            return warm
    raise HarnessError(f"after {_WARMING} runs guests are still being saved (does the cache hold them all?)")


@dataclass(frozen=True, slots=True)
class _Run:
    folder: Path
    record: RunRecord
    seconds: float
    memory_mib: int


def _matrix(project: Path, *arguments: str, panics: str = "") -> _Run:
    """Run the matrix as a user does; return what it recorded, its wall time and the most memory it held.

    ``panics`` is a file to run, whose tests panic the kernel.
    Raises HarnessError when it did not end as it should: green, or with the kernel's panic. The time of a broken run is
    no figure.
    """
    # always the same: a worker gets the whole command line, and one that got another is not restored
    results_of_bench = project / "results" / "bench"
    command = [sys.executable, "-m", "kernel_matrix", "matrix", f"--results={results_of_bench}", *arguments]
    command += [panics] if panics else []
    latest = results_of_bench / "latest"
    before = latest.resolve() if latest.exists() else None
    began = time.monotonic()
    memory = 0
    log = project / "results" / "bench.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output, subprocess.Popen(command, cwd=project, stdout=output, stderr=output) as process:
        ended = os.pidfd_open(process.pid)
        while not select.select([ended], [], [], _MEMORY_SECONDS)[0]:
            memory = max(memory, _anonymous_mib(process.pid))
        os.close(ended)
    seconds = time.monotonic() - began
    what = f"{' '.join(command[1:])} (output in {log}): status {process.returncode}"
    folder = latest.resolve()
    if folder == before or not (folder / "run.json").exists():
        raise HarnessError(f"no results of {what}")
    record = wire.decode((folder / "run.json").read_bytes(), RunRecord)
    if record.exit_status != process.returncode:
        raise HarnessError(f"{what}, but its results say {record.exit_status}; results in {folder}")
    if not (_panicked(folder, panics) if panics else process.returncode == 0 and record.cells):
        summary = matrix.summary_line(document.read(folder).cells)
        raise HarnessError(f"{what}, {summary}: its time is no figure; results in {folder}")
    return _Run(folder, record, seconds, memory)


def _panicked(folder: Path, panics: str) -> bool:
    """Whether the tests of that file ended as they should, and nothing else happened."""
    cells = document.read(folder).cells
    expected = {f"{panics}::{name}": outcome for name, outcome in _PANICKED.items()}
    return {cell.test: cell.outcome for cell in cells} == expected


def _anonymous_mib(ancestor: int) -> int:
    """Return the anonymous memory of a process and its descendants; page cache and shared files are no part of it."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        pid = int(path.parent.name)
        parents[pid] = int(fields["PPid"])
        sizes[pid] = int(fields.get("RssAnon", "0").split()[0])
    family = {ancestor}
    while children := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= children
    return sum(sizes.get(pid, 0) for pid in family) // 1024
