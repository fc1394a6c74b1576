"""Break the harness's own decisions in many ways, and see that a test notices each (``nox -s harness-mutants``).

The exit status is 1 when a mutant survives that the record has not, or a recorded one is killed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import mutant_record
import mutant_trials
import pytest
from mutant_record import Module, Record
from mutant_server import Server
from mutant_trials import Reference
from python_mutants import Mutant, Name, mutants, spans

ROOT = Path(__file__).resolve().parents[2]
RECORD = "tests/harness_mutants.toml"


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    #: a test did not come to its end
    TIME = "ended by a limit"
    #: the module cannot be imported or its tests not collected: nothing that a test decides
    BROKEN = "not importable"
    #: Ctrl-C
    CUT = "interrupted"


@dataclass(frozen=True, slots=True)
class Trial:
    """A mutant, with the tests that can notice it: node id -> CPU seconds."""

    path: str
    mutant: Mutant
    tests: Mapping[str, float]
    #: the function whose body has the change; empty where importing the module does
    function: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of all mutants of a module."""

    module: Module
    #: those that were tried
    fates: Mapping[Mutant, Fate]
    #: all of the module, tried or not
    names: Collection[Name]

    @property
    def survivors(self) -> list[Mutant]:
        """Those that no test noticed, in the order of their lines."""
        return [mutant for mutant, fate in self.fates.items() if fate is Fate.SURVIVED]

    def line(self) -> str:
        """Return the counts and the rate."""
        return f"{self.module.path}: {rate(self.fates.values())}"


def rate(fates: Iterable[Fate]) -> str:
    """Return counts, and which part of the mutants that can be imported was noticed."""
    counts = Counter(fates)
    noticed = counts[Fate.KILLED] + counts[Fate.TIME]
    decided = noticed + counts[Fate.SURVIVED]
    share = f"{100 * noticed / decided:.1f} %" if decided else "-"
    return f"{share} of {decided} killed ({', '.join(f'{counts[fate]} {fate}' for fate in Fate if counts[fate])})"


def trials(root: Path, module: Module, record: Record, reference: Reference) -> Iterator[Trial]:
    """Yield the module's mutants, with the tests of the module that enter the function of the change."""
    source = (root / module.path).read_text()
    functions = [span for span in spans(source) if span.function]
    files = set(module.tests)
    usages = {test: usage for test, usage in reference.tests.items() if test.partition("::")[0] in files}
    for mutant in mutants(source, record.without):
        around = [span for span in functions if span.has(mutant.line)]
        # what runs when it is imported, or while tests are collected, concerns all tests
        everywhere = not around or any(map(around[-1].has, reference.collecting.get(module.path, ())))
        tests = {
            test: usage.seconds
            for test, usage in usages.items()
            if everywhere or any(map(around[-1].has, usage.entered.get(module.path, ())))
        }
        in_body = bool(around) and mutant.line >= around[0].body
        yield Trial(module.path, mutant, tests, around[0].name if in_body else "")


class _Worker:
    """What a worker process has: its own copy of the project, and a pytest that has collected there."""

    root: Path
    server: Server


def _start(copies: SimpleQueue[Path], files: Sequence[str]) -> None:
    # Ctrl-C reaches all processes: a worker that waits for work ends when the command does
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Worker.root = copies.get()
    _Worker.server = Server(_Worker.root, files)


def _try(trial: Trial) -> Fate:
    if not trial.tests:
        return Fate.SURVIVED
    signal.signal(signal.SIGINT, signal.default_int_handler)
    mutant = trial.mutant
    try:
        status: int | None = mutant_trials.BROKEN
        if trial.function:
            status = _Worker.server.attempt(trial.path, mutant.source, trial.function, trial.tests)
        # only what survives in a module that is imported so has survived
        if status in {pytest.ExitCode.OK, mutant_trials.BROKEN}:
            status = mutant_trials.attempt(_Worker.root, trial.path, mutant.source, trial.tests)
    except KeyboardInterrupt:
        return Fate.CUT
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if status is None:
        return Fate.TIME
    if status == pytest.ExitCode.OK:
        return Fate.SURVIVED
    return Fate.BROKEN if status == mutant_trials.BROKEN else Fate.KILLED


def run(copies: Sequence[Path], files: Sequence[str], todo: Sequence[Trial]) -> list[Fate]:
    """Try the mutants, one at a time in each copy."""
    context = multiprocessing.get_context("fork")
    queue: SimpleQueue[Path] = context.SimpleQueue()
    for folder in copies:
        queue.put(folder)
    fates: dict[Future[Fate], Fate] = {}
    with ProcessPoolExecutor(len(copies), context, _start, (queue, files)) as executor:
        futures = [executor.submit(_try, trial) for trial in todo]
        try:
            for future in as_completed(futures):
                fates[future] = future.result()
                if sys.stderr.isatty():
                    print(f"\r{len(fates)} of {len(futures)} mutants", end="\r", file=sys.stderr, flush=True)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
    return [fates[future] for future in futures]


def judge(outcome: Outcome) -> list[str]:
    """Return a line for each difference from the record."""
    survived = [mutant.name for mutant in outcome.survivors]
    review = mutant_record.review(outcome.module, outcome.names, [mutant.name for mutant in outcome.fates], survived)
    lines = {mutant.name: mutant.line for mutant in outcome.fates}
    path = outcome.module.path
    return [
        *(f"survived: {path}:{lines[name]} {name}" for name in review.new),
        *(f"recorded as a survivor, but killed or gone: {path} {name}" for name in review.stale),
    ]


def sample(todo: Sequence[Trial], size: int | None, seed: int) -> list[Trial]:
    """Return a random choice in the order of ``todo``, the same for the same seed; without a size all."""
    if size is None or size >= len(todo):
        return list(todo)
    numbers = random.Random(seed).sample(range(len(todo)), size)  # noqa: S311
    return [todo[number] for number in sorted(numbers)]


def chosen(record: Record, names: Sequence[str]) -> tuple[Module, ...]:
    """Return the modules that are named, by the end of their path; without a name all that are reviewed."""
    if not names:
        return tuple(module for module in record.modules if module.reviewed)
    modules = [module for module in record.modules if any(module.path.endswith(f"/{name}") for name in names)]
    for name in names:
        if not any(module.path.endswith(f"/{name}") for module in modules):
            raise mutant_record.RecordError(f"no module {name}")
    return tuple(modules)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="nox -s harness-mutants --", description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as results/matrix.py; default: all")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, chosen at random")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random choice (default: 0)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="mutants at once")
    parser.add_argument("--root", type=Path, default=ROOT, help="the project; default: this one")
    options = parser.parse_args(arguments)
    if options.sample is not None and options.sample < 1:
        print(f"--sample {options.sample}: must be at least 1", file=sys.stderr)
        return 4
    root = options.root.resolve()
    try:
        record = mutant_record.parse((root / RECORD).read_text())
        modules = chosen(record, options.modules)
    except mutant_record.RecordError as error:
        print(f"{RECORD}: {error}", file=sys.stderr)
        return 4
    try:
        with tempfile.TemporaryDirectory(prefix="harness-mutants-") as folder:
            copies = [Path(folder, str(number)) for number in range(max(1, options.jobs))]
            return _run(root, record, modules, copies, lambda every: sample(every, options.sample, options.seed))
    except KeyboardInterrupt:
        return 130


def _run(
    root: Path,
    record: Record,
    modules: Sequence[Module],
    copies: Sequence[Path],
    choose: Callable[[Sequence[Trial]], list[Trial]],
) -> int:
    mutant_trials.copy(root, copies[0])
    files = dict.fromkeys(file for module in modules for file in module.tests)
    print(f"{len(files)} test files without a mutant", flush=True)
    reference = mutant_trials.reference(copies[0], files, [module.path for module in modules])
    if isinstance(reference, str):
        print(f"{reference}\nthe tests are red without a mutant: no verdict", file=sys.stderr)
        return 3
    for other in copies[1:]:
        mutant_trials.copy(copies[0], other)
    mutant_trials.load(reference.libraries)
    every = [trial for module in modules for trial in trials(root, module, record, reference)]
    todo = choose(every)
    print(f"{len(todo)} of {len(every)} mutants of {len(modules)} modules", flush=True)
    fates = run(copies, tuple(files), todo)
    outcomes = [
        Outcome(
            module,
            {trial.mutant: fate for trial, fate in zip(todo, fates, strict=True) if trial.path == module.path},
            {trial.mutant.name for trial in every if trial.path == module.path},
        )
        for module in modules
    ]
    differences = [line for outcome in outcomes for line in judge(outcome)]
    print("\n".join([*differences, *(outcome.line() for outcome in outcomes), f"all: {rate(fates)}"]))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
