"""From the command line to the verdict on the mutants."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from kernel_matrix import images
from kernel_matrix.commands.mutation import noticing, outcomes, record, sampling, table
from kernel_matrix.commands.mutation.guests import Target
from kernel_matrix.commands.mutation.making import compiling, generated, mistakes
from kernel_matrix.commands.mutation.making.cache import Cache
from kernel_matrix.commands.mutation.making.compiling import Objects
from kernel_matrix.commands.mutation.making.mistakes import Equivalent
from kernel_matrix.commands.mutation.making.mutant import Mutant
from kernel_matrix.commands.mutation.outcomes import Complaint, Fate, Outcome
from kernel_matrix.commands.mutation.parser import Options
from kernel_matrix.commands.mutation.running import Kernel, Try
from kernel_matrix.plan import preparation
from kernel_matrix.plan.guest_list import RunRequest
from kernel_matrix.report.run_folder import RunDirectory
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.outcomes.features import VARIANT
from kernel_matrix.shared.project import Project

#: seconds without a sign of life, which a guest gives every second, after which it counts as hung
_SILENCE = 60.0


def all_mutants(project: Project, programs: Sequence[str], *, listed: bool = False) -> tuple[Mutant, ...]:
    """Return the mutants of the programs: those of the list, and unless ``listed`` the generated ones.

    Raises ManifestError and ToolMissing.
    """
    if not project.mutation.tests:
        raise ManifestError(f"{project.table}: mutants.tests: no program is named")
    assert project.sources is not None
    for name in programs:
        if name not in project.mutation.tests:
            raise ManifestError(f"--program {name}: not one of mutants.tests ({', '.join(project.mutation.tests)})")
    mutants: list[Mutant] = []
    for program in programs or tuple(project.mutation.tests):
        if project.mutation.mistakes:
            mutants += mistakes.read(project.root / project.mutation.mistakes, program, project.sources)
        if not listed:
            source = f"{program}.bpf.c"
            mutants += generated.of_source(program, source, (project.sources / source).read_text())
    return tuple(mutants)


def run(project: Project, chosen: Options, say: Callable[[str], None]) -> int:
    """Try the mutants on each kernel; return the exit status. Raises HarnessError."""
    every = all_mutants(project, chosen.programs, listed=chosen.mistakes)
    known = {mutant.id: mutant for mutant in every}
    declared = _declared(project, known, listed=chosen.mistakes)
    mutants = sampling.chosen(every, chosen.only, chosen.sample, chosen.seed)
    if chosen.sample:
        say(f"{len(mutants)} of {len(every)} mutants, seed {chosen.seed}")
    recorded = record.read(project.mutants)
    plan = preparation.prepare(
        project, _request(project, chosen), RunDirectory.create(project.results / "mutants"), say=say
    )
    if plan.missing:
        raise HarnessError("; ".join(f"{name}: {why}" for name, why in plan.missing.items()))
    objects = compiling.compile_all(project, mutants, Cache(images.cache_dir() / "mutants"), say)
    complaints: list[Complaint] = []
    #: programs without a verdict
    silent: list[str] = []
    mistakes.check_features(declared, plan.all_features, project.root / project.mutation.mistakes)
    for guest in (guest for guest in plan.guests if VARIANT not in guest.kernel):
        before = recorded.get(guest.kernel, {})
        equivalent = mistakes.equivalent_on(declared, guest.features)
        kernel = Kernel(Target(project, plan, guest), say)
        red = kernel.check_programs(objects.programs) if objects.to_try else {}
        silent += [f"{guest.kernel}: {program}: {why}" for program, why in red.items()]
        if chosen.tests:
            tried = [mutant for mutant in mutants if mutant.program not in red]
            _notice(project, kernel, guest.kernel, tried, objects, writes=chosen.update)
            continue
        judged = [
            mutant for mutant in mutants if mutant.program not in red and not (chosen.new and mutant.id in before)
        ]
        keeper = _Keeper(project.mutants, recorded, guest.kernel, known, equivalent, writes=chosen.update)
        results = on_kernel(kernel, guest.kernel, judged, objects, before, keeper.keep)
        recorded = keeper.record
        wrong = outcomes.complaints(guest.kernel, results, equivalent, before)
        _show(guest.kernel, judged, results, wrong, say)
        complaints += wrong
    if silent:
        raise HarnessError("; ".join(silent))
    if chosen.tests:
        return _say_idle(project, chosen.programs or tuple(project.mutation.tests), say)
    return int(bool(complaints))


def _notice(
    project: Project, kernel: Kernel, name: str, mutants: Sequence[Mutant], objects: Objects, *, writes: bool
) -> None:
    """Find mutants that the tests notice of which no record says so; with ``writes`` record them."""
    noticed = dict(noticing.read(project.mutant_tests))
    named = noticing.killers(record.read(project.mutants)) | noticed.keys()
    tests = {
        program: set(noticing.functions_in(project.root, paths)) - named
        for program, paths in project.mutation.tests.items()
    }

    def keep(test: str, mutant: str) -> None:
        noticed[test] = f"{mutant} on {name}"
        if writes:
            noticing.write(project.mutant_tests, noticed)

    kernel.notice([Try(one, objects.to_try[one.id]) for one in mutants if one.id in objects.to_try], tests, keep)


def _say_idle(project: Project, programs: Sequence[str], say: Callable[[str], None]) -> int:
    """Print what the records leave open of the tests of these programs; return the exit status."""
    paths = [path for name in programs for path in project.mutation.tests[name]]
    idle = mistakes.idle_tests(project.root / project.mutation.mistakes) if project.mutation.mistakes else {}
    own = [test for test in idle if any(Path(test.partition("::")[0]).is_relative_to(path) for path in paths)]
    tests, killing = noticing.functions_in(project.root, paths), noticing.killers(record.read(project.mutants))
    lines = list(noticing.complaints(tests, killing, noticing.read(project.mutant_tests), own))
    for line in lines:
        say(line)
    return int(bool(lines))


class _Keeper:
    """Keeps outcomes as what is declared makes of them, and writes the record with each."""

    def __init__(
        self,
        path: Path,
        recorded: record.Record,
        kernel: str,
        known: Collection[str],
        declared: Collection[str],
        *,
        writes: bool,
    ) -> None:
        self._path = path
        self._kernel = kernel
        self._known = known
        self._declared = declared
        self._writes = writes
        self.record = recorded

    def keep(self, results: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """Return the outcomes as they are judged."""
        judged = {name: outcomes.judged(result, equivalent=name in self._declared) for name, result in results.items()}
        self.record = record.updated(self.record, self._kernel, judged, self._known)
        if self._writes:
            record.write(self._path, self.record)
        return judged


def _show(
    kernel: str,
    mutants: Sequence[Mutant],
    results: Mapping[str, Outcome],
    wrong: Sequence[Complaint],
    say: Callable[[str], None],
) -> None:
    """Print the end of a kernel's run: the table, the tests that killed, and what is wrong."""
    Console().print(table.counts(kernel, mutants, results))
    for line in (*table.killers(results.values()), *table.wrong(wrong, {mutant.id: mutant for mutant in mutants})):
        say(line)


def _declared(project: Project, known: Mapping[str, Mutant], *, listed: bool) -> Mapping[str, Equivalent]:
    """Return the mutants that are declared equivalent; raises ManifestError for one that is not there."""
    if not project.mutation.mistakes:
        return {}
    folder = project.root / project.mutation.mistakes
    declared = mistakes.equivalents(folder)
    if not listed:
        mistakes.check_equivalents(declared, known, folder)
    return declared


def _request(project: Project, chosen: Options) -> RunRequest:
    tests = dict.fromkeys(path for paths in project.mutation.tests.values() for path in paths)
    return RunRequest(
        chosen.kernels,
        arguments=tuple(tests),
        guests=chosen.guests,
        locked=False,
        silence=_SILENCE,
        # every guest but the first is restored behind the collection
        worker="always",
        worker_kind="mutants",
        divided=True,
        # which loader loads an object makes no difference to what it does
        loaders=project.loaders[:1],
    )


def on_kernel(
    kernel: Kernel,
    name: str,
    mutants: Sequence[Mutant],
    objects: Objects,
    before: Mapping[str, Outcome],
    keep: Callable[[Mapping[str, Outcome]], dict[str, Outcome]],
) -> dict[str, Outcome]:
    """Return what became of each mutant on a kernel; raises HarnessError."""
    chosen = {mutant.id for mutant in mutants}
    results: dict[str, Outcome] = {
        mutant: Outcome(Fate.NOT_COMPILING, why) for mutant, why in objects.not_compiling.items()
    }
    results |= {mutant: Outcome(Fate.SAME_CODE) for mutant in objects.same_code}
    work = [
        Try(mutant, objects.to_try[mutant.id], _killer(before.get(mutant.id), name))
        for mutant in mutants
        if mutant.id in objects.to_try
    ]
    results |= kernel.run(work, lambda mutant, outcome: keep({mutant: outcome}))
    # with --new, a twin that the record has is not tried again
    known = {**before, **results}
    results |= {mutant: known[twin] for mutant, twin in objects.twins.items() if mutant in chosen and twin in known}
    return keep({mutant: outcome for mutant, outcome in results.items() if mutant in chosen})


def _killer(before: Outcome | None, kernel: str) -> tuple[str, ...]:
    """Return the node id of the test that killed the mutant according to the record, if a test did."""
    if before is None or before.fate is not Fate.KILLED or "::" not in before.by:
        return ()
    return (expect.join_nodeid(before.by, kernel),)
