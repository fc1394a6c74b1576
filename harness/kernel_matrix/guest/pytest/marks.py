"""Marks for where a test runs and where it must be refused, and the pytest plugin that implements them.

`requires` skips by manifest data at collection; `refused_without` demands one exact refusal; `known_issue` is a
strict xfail on one named kernel; `boots_with` selects another kernel command line. A skip or an expected failure from
anywhere else is a failure. The caller stores a `GuestFacts` in ``config.stash[GUEST_FACTS]`` before collection.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Collection, Generator
from dataclasses import dataclass
from typing import NoReturn, get_args

import pytest

from kernel_matrix.guest.bpf.step_error import Stage, StepError, errno_name
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.shared.outcomes.features import VARIANT, GuestFacts, plain_kernel

#: the manifest's facts about this guest's kernel
GUEST_FACTS = pytest.StashKey[GuestFacts]()

#: the fixture that returns the loader
LOADER = "loader"

#: a report's user property: the test passed because the kernel refused as declared
REFUSED_PROPERTY = ("outcome", "refused")


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The refusal with which a test must end."""

    errno: int
    stage: Stage
    #: why: ``kernel 5.10 lacks xdp_frags``, ``bcc has no test runs``
    because: str


_EXPECTED_REFUSAL = pytest.StashKey[_Refusal]()
#: the reasons for which a mark of this module skips an item, or expects it to fail
_REASONS = pytest.StashKey[frozenset[str]]()
#: advice about a skip or an expected failure without a mark of this module
_INSTEAD = (
    "a test is left out by @requires(feature) or @boots_with(variant), expected to be refused by"
    " @refused_without(feature, errno, stage=...), and expected to fail by @known_issue(kernel, ...)"
)

_MARKS = {
    "requires": "requires(*features): skip where the manifest does not list these features",
    "requires_object": "requires_object(name): skip where this object could not be compiled, with the reason",
    "refused_without": "refused_without(feature, errno, *, stage): where the feature is missing, the test must end"
    " with a refusal of exactly this stage and errno",
    "with_loaders": "with_loaders(*loaders): run with these loaders only",
    "not_with": "not_with(loader, *, reason): skip with this loader, which cannot do what is tested by its nature",
    "refused_by": "refused_by(loader, errno, *, stage, reason, without=None): with this loader (where the feature"
    " `without` is missing) the test must end with a refusal of exactly this stage and errno",
    "boots_with": "boots_with(*variants): run only in guests whose kernel command line is one of these variants",
    "known_issue": "known_issue(kernel, reason, ref, raises, loader=None): strict xfail on this one kernel (with this"
    " loader)",
}

_TIMEOUT = "timeout(seconds): what set-up, call and teardown may take each, on the reference machine; 0: no limit"
_SPOILS = "spoils_guest(reason): run after all others of its guest, because only a reboot puts back what it changes"


def requires(*features: str) -> pytest.MarkDecorator:
    """Skip the test on kernels whose manifest entry lacks one of the features."""
    return pytest.mark.requires(*features)


def requires_object(name: str) -> pytest.MarkDecorator:
    """Skip the test where the host lacks what compiles this object, such as ``rust/packets``; the build says why."""
    return pytest.mark.requires_object(name)


def refused_without(feature: str, errno: int, *, stage: Stage) -> pytest.MarkDecorator:
    """Demand, on kernels without the feature, that the test ends with a StepError of exactly this stage and errno."""
    return pytest.mark.refused_without(feature, errno, stage=stage)


def refused_by(
    loader: str, errno: int, *, stage: Stage, reason: str, without: str | None = None
) -> pytest.MarkDecorator:
    """Demand, with this loader, that the test ends with a StepError of exactly this stage and errno.

    ``errno`` is 0 where the loader refuses by itself, without asking the kernel. ``without`` restricts the mark to
    kernels that lack a feature.
    """
    return pytest.mark.refused_by(loader, errno, stage=stage, reason=reason, without=without)


def with_loaders(*loaders: str) -> pytest.MarkDecorator:
    """Run the test, which is about some loaders, with these only."""
    return pytest.mark.with_loaders(*loaders)


def not_with(loader: str, *, reason: str) -> pytest.MarkDecorator:
    """Skip the test with a loader that by its nature has nothing to do with it; for what it refuses, `refused_by`."""
    return pytest.mark.not_with(loader, reason=reason)


def boots_with(*variants: str) -> pytest.MarkDecorator:
    """Run the test only in guests whose kernel command line is one of these variants of variants.toml."""
    return pytest.mark.boots_with(*variants)


def known_issue(
    kernel: str, *, reason: str, ref: str, raises: type[BaseException], loader: str | None = None
) -> pytest.MarkDecorator:
    """Expect this failure, strictly, on one kernel; `ref` is a commit or a report that readers can open.

    ``loader`` restricts it to one loader.
    """
    return pytest.mark.known_issue(kernel, reason=reason, ref=ref, raises=raises, loader=loader)


def spoils_guest(reason: str) -> pytest.MarkDecorator:
    """Run the test after all others of its guest, because it changes what only a reboot restores."""
    return pytest.mark.spoils_guest(reason)


def timeout(seconds: float) -> pytest.MarkDecorator:
    """Limit each phase of the test to so many seconds on the reference machine; 0: no limit."""
    return pytest.mark.timeout(seconds)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Show enums in node ids by their names, and errnos too in parameters that are named ..._errno."""
    if isinstance(val, enum.Enum):
        return val.name
    if argname.endswith("_errno") and isinstance(val, int):
        return errno_name(val)
    return None


def parametrize_loader(metafunc: pytest.Metafunc, loaders: Collection[str]) -> None:
    """Run a test that requests the fixture ``loader`` once with each of these loaders, file by file.

    A test about some loaders (`with_loaders`) runs with those of them.
    """
    if not loaders or LOADER not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("with_loaders")
    # where the run has none of them, the test is deselected: a test without parameters would be skipped
    names = [name for name in loaders if mark is None or name in mark.args] or list(mark.args if mark else ())
    metafunc.parametrize(LOADER, names, ids=names, indirect=True, scope="module")


def loader_of(item: pytest.Item) -> str | None:
    """Return the loader that the item runs with; None when it loads nothing, or the table names no loaders."""
    specification = getattr(item, "callspec", None)
    name: str | None = None if specification is None else specification.params.get(LOADER)
    return name


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, so that a misspelt mark is an error."""
    register(config)


def register(config: pytest.Config) -> None:
    """Declare the marks for a pytest that does not apply them."""
    for line in [*_MARKS.values(), _SPOILS, _TIMEOUT]:
        config.addinivalue_line("markers", line)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect other variants' tests; apply the marks; move tests that spoil a guest to the end."""
    _deselect_other_variants(config, items)
    _deselect_other_loaders(config, items)
    if (seed := getattr(config.option, "order", None)) is not None:
        items.sort(key=lambda item: shuffled(seed, item.nodeid, loader_of(item) or ""))
    items.sort(key=lambda item: item.get_closest_marker("spoils_guest") is not None)
    for item in items:
        if loader_of(item) is None and not any(item.get_closest_marker(name) for name in _MARKS):
            continue
        facts = config.stash.get(GUEST_FACTS, None)
        if facts is None:
            raise pytest.UsageError(f"{item.nodeid}: has marks about kernels, but this run knows no kernel")
        _apply(item, facts)


def shuffled(seed: int, nodeid: str, loader: str) -> tuple[bytes, ...]:
    """Return the key that sorts tests into a seed's order.

    Tests of a folder, a file and a loader stay together: they may share what takes long to set up.
    """
    file = nodeid.partition("::")[0]
    parts = (file.rpartition("/")[0], file, f"{file} {loader}", nodeid)
    return tuple(hashlib.sha256(f"{seed} {part}".encode()).digest() for part in parts)


def _deselect_other_variants(config: pytest.Config, items: list[pytest.Item]) -> None:
    facts = config.stash.get(GUEST_FACTS, None)
    deselected = [item for item in items if (facts.variant if facts else "") not in (_variants(item, facts) or {""})]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in set(deselected)]


def _deselect_other_loaders(config: pytest.Config, items: list[pytest.Item]) -> None:
    facts = config.stash.get(GUEST_FACTS, None)
    if facts is None or not facts.loaders:
        return
    deselected = [item for item in items if loader_of(item) not in {None, *facts.loaders}]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in set(deselected)]


def variants_of(item: pytest.Item) -> set[str]:
    """Return the variants that a test's marks name; none: it runs without one."""
    return {name for mark in item.iter_markers("boots_with") for name in mark.args}


def _variants(item: pytest.Item, facts: GuestFacts | None) -> set[str]:
    """Return `variants_of` a test; raises UsageError for one that the manifest lacks."""
    variants = variants_of(item)
    for name in variants if facts else ():
        _check_known(item, "variant", name, facts.variants if facts else ())
    return variants


def _apply(item: pytest.Item, facts: GuestFacts) -> None:
    reasons = {*_skip(item, facts), *_expect_failure(item, facts)}
    item.stash[_REASONS] = frozenset(reasons)
    _expect_refusal(item, facts)


def _skip(item: pytest.Item, facts: GuestFacts) -> list[str]:
    """Skip an item when a required feature is missing; return the reasons."""
    required = {feature: None for mark in item.iter_markers("requires") for feature in mark.args}
    for feature in required:
        _check_known(item, "feature", feature, facts.all_features)
    variants_wanted = _variants(item, facts) or {""}
    possible = {name: has for name, has in facts.kernels.items() if name.partition(VARIANT)[2] in variants_wanted}
    if not any(required.keys() <= features for features in possible.values()):
        variants = f" and boots with {' or '.join(sorted(variants_wanted))}" if variants_wanted != {""} else ""
        raise pytest.UsageError(
            f"{item.nodeid}: no kernel of the manifest has {' and '.join(sorted(required))}{variants}"
        )
    reasons = [
        f"feature {feature}: not on kernel {facts.kernel} (manifest)"
        for feature in required
        if feature not in facts.features
    ]
    for mark in item.iter_markers("not_with"):
        _check_loader(item, mark.args[0], facts)
        if mark.args[0] == loader_of(item):
            reasons.append(f"{mark.args[0]}: {mark.kwargs['reason']}")
    for mark in item.iter_markers("requires_object"):
        reason_file = object_path(mark.args[0]).with_suffix(".unavailable")
        if reason_file.exists():
            reasons.append(reason_file.read_text().strip())
    if lacking := facts.loaders.get(loader_of(item) or "", ""):
        reasons.append(lacking)
    for reason in reasons:
        item.add_marker(pytest.mark.skip(reason=reason))
    return reasons


def _expect_failure(item: pytest.Item, facts: GuestFacts) -> list[str]:
    """Expect a failure on the kernel that a known issue names; return the reasons."""
    reasons = []
    for mark in item.iter_markers("known_issue"):
        kernel = mark.args[0]
        _check_known(item, "kernel", kernel, facts.kernels)
        # pytest.fail raises no Exception: the harness uses it for kernel warnings, leaks and limits
        if not issubclass(mark.kwargs["raises"], Exception):
            raise pytest.UsageError(f"{item.nodeid}: a known issue raises an Exception, not any BaseException")
        loader = mark.kwargs.get("loader")
        if loader is not None:
            _check_loader(item, loader, facts)
        # a defect of a kernel does not depend on its command line
        if kernel in {facts.kernel, plain_kernel(facts.kernel)} and loader in {None, loader_of(item)}:
            reasons.append(f"{mark.kwargs['reason']} ({mark.kwargs['ref']})")
            item.add_marker(pytest.mark.xfail(reason=reasons[-1], raises=mark.kwargs["raises"], strict=True))
    return reasons


def _expect_refusal(item: pytest.Item, facts: GuestFacts) -> None:
    """Expect a refusal where the feature of a mark is missing."""
    marks = list(item.iter_markers("refused_without"))
    if len(marks) > 1:
        raise pytest.UsageError(f"{item.nodeid}: {len(marks)} refused_without marks, but a test ends with one refusal")
    for mark in marks:
        if len(mark.args) != 2 or mark.kwargs.keys() != {"stage"}:
            raise pytest.UsageError(f"{item.nodeid}: a refusal is refused_without(feature, errno, stage=...)")
        feature, number = mark.args
        _check_known(item, "feature", feature, facts.all_features)
        _check_known(item, "stage", mark.kwargs["stage"], get_args(Stage))
        if feature in {name for required in item.iter_markers("requires") for name in required.args}:
            raise pytest.UsageError(f"{item.nodeid}: skipped without {feature}, so never refused without it")
        if feature not in facts.features:
            because = f"kernel {facts.kernel} lacks {feature}"
            item.stash[_EXPECTED_REFUSAL] = _Refusal(number, mark.kwargs["stage"], because)
    _expect_loaders_refusal(item, facts)


def _expect_loaders_refusal(item: pytest.Item, facts: GuestFacts) -> None:
    """Expect a refusal with a loader that a mark names."""
    for mark in item.iter_markers("refused_by"):
        if len(mark.args) != 2 or not {"stage", "reason"} <= mark.kwargs.keys() <= {"stage", "reason", "without"}:
            raise pytest.UsageError(f"{item.nodeid}: refused_by(loader, errno, stage=..., reason=..., without=...)")
        loader, number = mark.args
        without = mark.kwargs.get("without")
        _check_loader(item, loader, facts)
        _check_known(item, "stage", mark.kwargs["stage"], get_args(Stage))
        if without is not None:
            _check_known(item, "feature", without, facts.all_features)
        if loader != loader_of(item) or without in facts.features:
            continue
        if _EXPECTED_REFUSAL in item.stash:
            raise pytest.UsageError(f"{item.nodeid}: two refusals expected, but a test ends with one")
        item.stash[_EXPECTED_REFUSAL] = _Refusal(number, mark.kwargs["stage"], mark.kwargs["reason"])


def _check_loader(item: pytest.Item, name: str, facts: GuestFacts) -> None:
    """Refuse a loader that the table does not have; a run with ``--loader`` knows only those it runs."""
    if loader_of(item) is None:
        raise pytest.UsageError(f"{item.nodeid}: a mark names the loader {name}, but the test runs with none")
    _check_known(item, "loader", name, facts.all_loaders)


def _check_known(item: pytest.Item, kind: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise pytest.UsageError(f"{item.nodeid}: unknown {kind} {name!r} (known: {', '.join(sorted(names))})")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Pass a call that expects a refusal only if it ends with exactly that refusal."""
    expected = pyfuncitem.stash.get(_EXPECTED_REFUSAL, None)
    if expected is None:
        return (yield)
    refusal = f"{expected.stage} refused with {errno_name(expected.errno)}"
    because = f"expected {refusal} because {expected.because}, but it"
    try:
        yield
    except OSError as error:
        result = check_refusal(error, expected.errno, expected.stage)
        if isinstance(result, str):
            _fail(f"{because} ended with {result}", error)
        pyfuncitem.user_properties.append(REFUSED_PROPERTY)
        return True
    except Exception as error:  # noqa: BLE001  any other exception of the test is the finding here
        _fail(f"{because} raised {type(error).__name__}: {error}", error)
    return pytest.fail(f"{because} succeeded", pytrace=False)


def _fail(line: str, cause: Exception) -> NoReturn:
    raise pytest.fail.Exception(line, pytrace=False) from cause


def check_refusal(error: OSError, errno: int, stage: Stage) -> StepError | str:
    """Return the error as the expected refusal, or else a description of the error.

    Only a step makes the call under test: the same errno from anywhere else is not a refusal.
    """
    if not isinstance(error, StepError):
        return f"{errno_name(error.errno)} from no step: {error}"
    if (error.errno, error.stage) != (errno, stage):
        return f"{error.stage} refused with {errno_name(error.errno)}: {error}"
    return error


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip or an expected failure without a mark of this module into a failure."""
    report = yield
    if report.skipped and (reason := _reason(report)) not in item.stash.get(_REASONS, frozenset()):
        what = "expected to fail" if hasattr(report, "wasxfail") else "skipped"
        # pytest treats a report with this attribute as an xfail, whatever its outcome
        vars(report).pop("wasxfail", None)
        report.outcome = "failed"
        report.longrepr = f"{what} by no mark of the matrix: {reason or 'no reason given'}\n{_INSTEAD}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole file into a collection failure."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped as a whole: {_reason(report) or 'no reason given'}\n{_INSTEAD}"
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the reason of a skip or of an expected failure."""
    reason: str | None = getattr(report, "wasxfail", None)
    if reason is not None:
        return reason
    # a tuple of path, line and text when an exception caused the skip
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
