"""The differences between a baseline and a run, or between two runs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kernel_matrix.results.baseline import Expectation, of_document
from kernel_matrix.results.changes import Change, Kind
from kernel_matrix.results.document import Document
from kernel_matrix.shared import hints
from kernel_matrix.shared.bpf.costs import COMPARED, Cost
from kernel_matrix.shared.outcomes.cells import Outcome
from kernel_matrix.shared.outcomes.expect import loader_of
from kernel_matrix.shared.outcomes.features import plain_kernel


@dataclass(frozen=True, slots=True)
class Scope:
    """What is compared, and how strictly."""

    #: a cost may grow by this share before that is a regression
    cost_growth: float = 0.1
    #: whether another version of a kernel makes the run red by itself
    drift_gates: bool = False
    #: whether all tests of the kernels were to run: a test that did not run is gone
    whole: bool = True
    #: kernels that must have a baseline, as must their variants: those of the manifest, which CI runs
    kernels: frozenset[str] = frozenset()
    #: the loaders that a machine of the run lacked: the run names them in a line, their tests' skips are no changes
    left_out: tuple[str, ...] = ()


def compare(
    expected: Mapping[str, Expectation], present: Mapping[str, Expectation], scope: Scope
) -> tuple[Change, ...]:
    """Return every difference, what gates first, then by kind, kernel and name.

    Kernels that were not in the run are not compared; a variant belongs to its kernel's run.
    """
    changes: list[Change] = []
    # a kernel with a baseline of any variant is one of the project's, too
    recorded = scope.kernels | {plain_kernel(kernel) for kernel in expected}
    for kernel, now in present.items():
        before = expected.get(kernel)
        if before is None:
            changes.append(_without(kernel, f"{len(now.tests)} cells", gates=plain_kernel(kernel) in recorded))
            continue
        changes += _kernel(kernel, before, now, scope)
        if now.costs and not before.costs and kernel in scope.kernels:
            changes.append(_without(kernel, f"costs of {len(now.costs)} programs", gates=True))
    if scope.whole:
        changes += _guests_gone(expected, present)
    order = list(Kind)
    return tuple(
        sorted(changes, key=lambda change: (not change.gates, order.index(change.kind), change.kernel, change.what))
    )


def _without(kernel: str, what: str, *, gates: bool) -> Change:
    """Return the change for a kernel without a baseline; it gates, as deleting a baseline is no approval."""
    note = (
        f"it has no baseline: `{hints.command('baseline', f'--update --kernel {plain_kernel(kernel)}')}`, and review it"
    )
    return Change(Kind.NEW, kernel, "", "", what, note, gates)


def of_run(expected: Mapping[str, Expectation], run: Document, scope: Scope) -> tuple[Change, ...]:
    """Compare a run with the baseline."""
    return compare(expected, of_document(run), replace(scope, whole=run.complete, left_out=run.left_out))


def _kernel(kernel: str, before: Expectation, now: Expectation, scope: Scope) -> Iterator[Change]:
    note = ""
    if (before.release, before.version, before.config) != (now.release, now.version, now.config):
        was, is_ = (f"{side.release} {side.version} {side.config}".strip() for side in (before, now))
        yield Change(Kind.DRIFTED, kernel, "", was, is_, gates=scope.drift_gates)
        note = f"the kernel has drifted: {before.version} -> {now.version}"
    for test in sorted({*before.tests, *now.tests}):
        change = _test(kernel, test, before.tests.get(test), now.tests.get(test), note)
        if change is not None and change.kind is Kind.SKIPPED and loader_of(test, scope.left_out):
            continue
        if change is not None and (scope.whole or change.kind is not Kind.GONE):
            yield change
        if all(side.tests.get(test, Outcome.SKIP).traits.done for side in (before, now)):
            yield from _observations(kernel, test, before.observed.get(test, {}), now.observed.get(test, {}), note)
    # a partial run did not measure the others
    for program in sorted({*before.costs, *now.costs} if scope.whole else now.costs):
        yield from _cost(kernel, program, before.costs.get(program), now.costs.get(program), scope, note)


def _test(kernel: str, test: str, before: Outcome | None, after: Outcome | None, note: str) -> Change | None:
    if before == after:
        return None
    kind, gates = _kind(before, after)
    return Change(kind, kernel, test, str(before or ""), str(after or ""), note, gates)


def _observations(
    kernel: str, test: str, before: Mapping[str, str], after: Mapping[str, str], note: str
) -> Iterator[Change]:
    """Yield what a test observed otherwise; all of it gates: a test of the baseline has its observations there."""
    for name in sorted({*before, *after}):
        was, is_ = (f"{name}: {values[name]}" if name in values else "" for values in (before, after))
        if was != is_:
            yield Change(Kind.OBSERVED, kernel, test, was, is_, note, gates=True)


def _kind(before: Outcome | None, after: Outcome | None) -> tuple[Kind, bool]:
    """Return the kind of change between two outcomes of a test, and whether it gates."""
    if before is None or after is None:
        return (Kind.GONE, True) if after is None else (Kind.NEW, not after.green)
    if not after.green:
        return (Kind.REGRESSION if before.green else Kind.CHANGED), True
    if not before.green or (not before.traits.done and after.traits.done):
        return Kind.FIXED, False
    return (Kind.SKIPPED if after is Outcome.SKIP else Kind.CHANGED), True


def _cost(
    kernel: str, program: str, before: Cost | None, after: Cost | None, scope: Scope, note: str
) -> Iterator[Change]:
    if before is None or after is None:
        kind = Kind.GONE if after is None else Kind.NEW
        yield Change(kind, kernel, program, _instructions(before), _instructions(after), note, gates=after is None)
        return
    grown, shrunk = {}, {}
    for name in COMPARED:
        was, is_ = getattr(before, name), getattr(after, name)
        if is_ > was * (1 + scope.cost_growth):
            grown[name] = (was, is_)
        elif is_ < was * (1 - scope.cost_growth):
            shrunk[name] = (was, is_)
    for kind, changed in ((Kind.COSTLIER, grown), (Kind.CHEAPER, shrunk)):
        if changed:
            was, is_ = (", ".join(f"{name} {pair[at]}" for name, pair in changed.items()) for at in (0, 1))
            yield Change(kind, kernel, program, was, is_, note, gates=kind is Kind.COSTLIER)


def _instructions(cost: Cost | None) -> str:
    return "" if cost is None else f"instructions {cost.instructions}"


def _guests_gone(expected: Mapping[str, Expectation], present: Mapping[str, Expectation]) -> Iterator[Change]:
    """Yield the variants of this run's kernels that the baseline has and the run has not."""
    for kernel, before in expected.items():
        if kernel not in present and plain_kernel(kernel) in present:
            yield Change(Kind.GONE, kernel, "", f"{len(before.tests)} cells", "", gates=True)


def summary(changes: Iterable[Change]) -> str:
    """Count the differences by kind, in one line; empty when there are none."""
    counts = Counter(change.kind for change in changes)
    return ", ".join(f"{counts[kind]} {kind}" for kind in Kind if counts[kind])


def baseline_lines(changes: Sequence[Change], limit: int) -> list[str]:
    """Return the lines of a run about its baseline; none when nothing is different."""
    return [f"against the baseline: {summary(changes)}", *lines(changes, limit)] if changes else []


def lines(changes: Iterable[Change], limit: int) -> list[str]:
    """Return a line for each difference, at most ``limit``, and one line for all new tests of a kernel."""
    shown: list[str] = []
    new: Counter[str] = Counter()
    for change in changes:
        if change.kind is Kind.NEW and change.what and not change.gates:
            new[change.kernel] += 1
        else:
            shown.append(str(change))
    rest = [f"... and {len(shown) - limit} more in matrix.json"] if len(shown) > limit else []
    return [*shown[:limit], *rest, *(f"{Kind.NEW}: {kernel}: {count} cells" for kernel, count in new.items())]
