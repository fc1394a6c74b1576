"""Try the mutants of a run on one kernel, in several guests at once."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from kernel_matrix.commands.mutation import outcomes
from kernel_matrix.commands.mutation.guests import GuestLost, Target, Warm, valid
from kernel_matrix.commands.mutation.making.mutant import Mutant
from kernel_matrix.commands.mutation.noticing import function
from kernel_matrix.commands.mutation.outcomes import Outcome
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.shared.outcomes.mutants import Result, Trial

_T = TypeVar("_T")
#: seconds that the tests of a program may take before anything is known of them
_FIRST_SECONDS = 900.0
#: a mutant's tests may take this many times as long as the program's, and so many seconds
_TIMES, _SECONDS = 3.0, 30.0
#: A mutant that counts nothing lets a test wait for its whole limit. So limits are first this part of a run's; what
#: such a limit has decided is tried again with whole ones.
_PART_OF_LIMITS = 0.2
#: how many guests may die one after another in the program's own trial, or before any test
_MOST_LOST = 2


@dataclass(frozen=True, slots=True)
class Try:
    """A mutant and its object."""

    mutant: Mutant
    data: bytes
    #: the tests that killed it before, by their node ids
    first: tuple[str, ...] = ()


class Kernel:
    """The trials on one kernel."""

    def __init__(self, target: Target, say: Callable[[str], None]) -> None:
        self._target = target
        self._say = say
        self._kernel = target.guest.kernel
        #: program -> how often each of its tests killed
        self._kills: dict[str, Counter[str]] = {}
        self._seconds: dict[str, float] = {}
        self._programs: Mapping[str, bytes] = {}
        self._lock = threading.Lock()
        self._done = 0
        #: whether a guest gave no verdict: the others end, too
        self._failed = False

    def check_programs(self, objects: Mapping[str, bytes]) -> dict[str, str]:
        """Try the programs themselves: where a test is red without a mutant, nothing can be learned from its mutants.

        Return the programs without a verdict, and why. Raises HarnessError.
        """
        red: dict[str, str] = {}
        self._programs = objects
        waiting = deque(objects.items())

        def serve(warm: Warm) -> None:
            while (work := self._next(waiting)) is not None:
                if why := self._check(warm, *work):
                    red[work[0]] = why

        self._in_guests(serve, len(objects))
        return red

    def _check(self, warm: Warm, program: str, data: bytes) -> str:
        """Return why there is no verdict on a program's mutants, empty where there is one."""
        result = self._tried(warm, data, self._trial(program, (), _FIRST_SECONDS, stops=False), _MOST_LOST)
        if isinstance(result, Outcome):
            return f"red without a mutant: {result.by}: {result.why}"
        if result.failed:
            return "red without a mutant: " + "; ".join(f"{test}: {why}" for test, why in result.failed)
        self._seconds[program] = result.seconds
        self._kills[program] = Counter()
        self._say(f"{self._kernel}: {program}: {result.tests} tests pass in {result.seconds:.0f} s without a mutant")
        return ""

    def run(self, work: Sequence[Try], keep: Callable[[str, Outcome], object]) -> dict[str, Outcome]:
        """Return what became of the mutants, by their ids; each is kept as soon as it is known. Raises HarnessError."""
        results: dict[str, Outcome] = {}
        waiting = deque(work)

        def serve(warm: Warm) -> None:
            while (item := self._next(waiting)) is not None:
                began = time.monotonic()
                outcome = self._outcome(warm, item)
                with self._lock:
                    results[item.mutant.id] = outcome
                    keep(item.mutant.id, outcome)
                    self._done += 1
                    by = f" by {outcome.by}" if outcome.by else ""
                    by += f": {outcome.why}" if outcome.why else ""
                    took = f"{time.monotonic() - began:.1f} s"
                    place = f"[{self._done}/{len(work)}] {self._kernel}"
                    self._say(f"{place} {item.mutant.id}: {outcome.fate}{by} ({took})")

        self._in_guests(serve, len(work))
        return results

    def notice(
        self, work: Sequence[Try], tests: Mapping[str, Collection[str]], keep: Callable[[str, str], object]
    ) -> None:
        """Try the mutants with these test functions of their programs, to the end; keep each that notices one.

        A function that has noticed a mutant is not run with another one. Raises HarnessError.
        """
        waiting = deque(work)
        left = {program: set(names) for program, names in tests.items()}

        def serve(warm: Warm) -> None:
            while (item := self._next(waiting)) is not None:
                with self._lock:
                    names = tuple(sorted(left[item.mutant.program]))
                for test in self._noticing(warm, item, names) if names else ():
                    with self._lock:
                        if test in left[item.mutant.program]:
                            left[item.mutant.program].remove(test)
                            keep(test, item.mutant.id)
                with self._lock:
                    self._done += 1
                    count = sum(map(len, left.values()))
                    self._say(f"[{self._done}/{len(work)}] {self._kernel} {item.mutant.id}: {count} tests are left")

        self._in_guests(serve, len(work))

    def _noticing(self, warm: Warm, item: Try, tests: tuple[str, ...]) -> list[str]:
        """Return the test functions that fail with a mutant, and pass without it in the same guest."""
        program = item.mutant.program
        seconds = self._seconds[program] * _TIMES + _SECONDS
        trial = replace(self._trial(program, (), seconds, stops=False), tests=tests, limits=_PART_OF_LIMITS)
        result = self._tried(warm, item.data, trial, 2)
        if isinstance(result, Result) and result.late and result.failed:
            # what a limit has decided is tried again with whole ones
            failed = tuple(dict.fromkeys(function(test) for test, _ in result.failed))
            result = self._tried(warm, item.data, replace(trial, tests=failed, limits=1.0), 2)
        if isinstance(result, Outcome) or result.refused:
            return []
        for test, _ in result.failed:
            self._clear(warm, program, test)
        return list(dict.fromkeys(function(test) for test, _ in result.failed))

    def _outcome(self, warm: Warm, item: Try) -> Outcome:
        """Try a mutant; what a limit of time has decided, or a lost guest, counts only if it happens again."""
        program = item.mutant.program
        seconds = self._seconds[program] * _TIMES + _SECONDS
        with self._lock:
            usual = tuple(test for test, _ in self._kills[program].most_common())
        trial = replace(self._trial(program, (*item.first, *usual), seconds), limits=_PART_OF_LIMITS)
        result = self._tried(warm, item.data, trial, 2)
        if isinstance(result, Outcome):
            return result
        if result.late and result.failed and not result.refused:
            again = replace(trial, first=(result.failed[0][0], *trial.first), limits=1.0)
            result = self._tried(warm, item.data, again, 2)
            if isinstance(result, Outcome):
                return result
        if result.failed and not result.refused:
            self._clear(warm, program, result.failed[0][0])
        if result.failed and not (result.refused or result.late):
            # those that wait for their limit do not come first
            with self._lock:
                self._kills[program][result.failed[0][0]] += 1
        return outcomes.of_result(result, self._kernel)

    def _clear(self, warm: Warm, program: str, test: str) -> None:
        """See the test that killed a mutant pass without one, in the same guest; raises HarnessError.

        A guest that has been used may be what it fails with.
        """
        if test in warm.cleared:
            return
        trial = replace(self._trial(program, (), _FIRST_SECONDS), tests=(test,))
        result = self._tried(warm, self._programs[program], trial, _MOST_LOST)
        if isinstance(result, Outcome) or result.failed:
            why = result.why if isinstance(result, Outcome) else result.failed[0][1]
            raise HarnessError(f"{self._kernel}: {program}: red without a mutant behind one: {test}: {why}")
        warm.cleared.add(test)

    def _tried(self, warm: Warm, data: bytes, trial: Trial, times: int) -> Result | Outcome:
        """Return the result of a trial, or the outcome of a guest that was lost so many times. Raises HarnessError.

        A guest that is lost while no test runs is not the object's doing: it is reported, and another takes its place.
        """
        in_tests, before = 0, 0
        while True:
            try:
                return valid(warm.try_object(data, trial), self._target.guest.ending_path.parent)
            except GuestLost as error:
                if error.test:
                    in_tests += 1
                    trial = replace(trial, first=(error.test, *trial.first))
                    if in_tests == times:
                        return outcomes.lost(error.test, self._kernel, error.reason)
                    continue
                before += 1
                if before == _MOST_LOST:
                    raise HarnessError(f"{self._kernel}: its guest was lost: {error.reason}") from error
                self._say(f"{self._kernel}: a guest was lost before its first test: {error.reason}; another one begins")

    def _trial(self, program: str, first: tuple[str, ...], seconds: float, *, stops: bool = True) -> Trial:
        tests = self._target.project.mutation.tests[program]
        return Trial(program, tests, tuple(dict.fromkeys(first)), seconds, stops)

    def _next(self, waiting: deque[_T]) -> _T | None:
        with self._lock:
            return waiting.popleft() if waiting and not self._failed else None

    def _in_guests(self, serve: Callable[[Warm], None], most: int) -> None:
        """Call ``serve`` with a guest in as many threads as guests may run at once."""
        count = max(1, min(self._target.plan.facts.guests, most))

        def work(number: int) -> None:
            warm = Warm(self._target, self._target.guest.of_worker(WorkerId(self._kernel, number)))
            try:
                serve(warm)
            except BaseException:
                self._failed = True
                raise
            finally:
                warm.close()

        with ThreadPoolExecutor(count) as pool:
            for done in [pool.submit(work, number) for number in range(1, count + 1)]:
                done.result()
