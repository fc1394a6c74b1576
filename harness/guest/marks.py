"""Marks that say where a test runs and where it must be refused, and the pytest plugin behind them.

`requires` skips by manifest data at collection; `refused_without` demands one exact refusal; `known_issue` is a
strict xfail on one named kernel; `boots_with` asks for another kernel command line. Whoever runs the tests puts a
`GuestFacts` in ``config.stash[GUEST_FACTS]`` before collection.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Collection, Generator

import pytest

from harness.features import GuestFacts, plain_kernel

#: where the plugin finds what the manifest says about this guest's kernel
GUEST_FACTS = pytest.StashKey[GuestFacts]()

#: in a report's user_properties: the test passed because the kernel refused as declared
REFUSED_PROPERTY = ("outcome", "refused")

#: the refusal an item must end with on this kernel: errno and the feature that is missing
_EXPECTED_REFUSAL = pytest.StashKey[tuple[int, str]]()

#: 95 has two names, of which the kernel uses this one; 524 is internal to the kernel and shown all the same
_ERRNO_NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP", 524: "ENOTSUPP"}

_MARKS = {
    "requires": "requires(*features): skip where the manifest does not list these features",
    "refused_without": "refused_without(feature, errno): where the feature is missing, the test must raise"
    " an OSError with exactly this errno",
    "boots_with": "boots_with(*variants): run only in guests whose kernel command line is one of these variants",
    "known_issue": "known_issue(kernel, reason, ref, raises): strict xfail on this one kernel",
}

_SPOILS = "spoils_guest(reason): run after all others of its guest, because only a reboot puts back what it changes"


def requires(*features: str) -> pytest.MarkDecorator:
    """Skip the test on kernels whose manifest entry lacks one of the features."""
    return pytest.mark.requires(*features)


def refused_without(feature: str, errno: int) -> pytest.MarkDecorator:
    """On kernels without the feature the test must end with an OSError of exactly this errno."""
    return pytest.mark.refused_without(feature, errno)


def boots_with(*variants: str) -> pytest.MarkDecorator:
    """Run the test only in guests whose kernel command line is one of these variants of variants.toml."""
    return pytest.mark.boots_with(*variants)


def known_issue(kernel: str, *, reason: str, ref: str, raises: type[BaseException]) -> pytest.MarkDecorator:
    """Expect this failure, strictly, on one kernel; `ref` is a commit or a report others can open."""
    return pytest.mark.known_issue(kernel, reason=reason, ref=ref, raises=raises)


def spoils_guest(reason: str) -> pytest.MarkDecorator:
    """Run the test after all others of its guest: it changes what only a reboot puts back."""
    return pytest.mark.spoils_guest(reason)


def errno_name(number: int | None) -> str:
    """Name an errno for a message: 22 is ``EINVAL``."""
    return _ERRNO_NAMES.get(number or 0) or errno.errorcode.get(number or 0, f"errno {number}")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name enums in node ids by their names, and errnos in parameters that are named ..._errno."""
    if isinstance(val, enum.Enum):
        return val.name
    if argname.endswith("_errno") and isinstance(val, int):
        return errno_name(val)
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, so that a misspelt one is an error."""
    register(config)


def register(config: pytest.Config) -> None:
    """Make the marks known to a pytest that need not obey them."""
    for line in [*_MARKS.values(), _SPOILS]:
        config.addinivalue_line("markers", line)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out other variants' tests; turn the marks into skips, xfails and refusals; put what spoils a guest last."""
    _leave_out_other_variants(config, items)
    items.sort(key=lambda item: item.get_closest_marker("spoils_guest") is not None)
    for item in items:
        if not any(item.get_closest_marker(name) for name in _MARKS):
            continue
        facts = config.stash.get(GUEST_FACTS, None)
        if facts is None:
            raise pytest.UsageError(f"{item.nodeid}: has marks about kernels, but this run knows no kernel")
        _apply(item, facts)


def _leave_out_other_variants(config: pytest.Config, items: list[pytest.Item]) -> None:
    facts = config.stash.get(GUEST_FACTS, None)
    there = [item for item in items if (facts.variant if facts else "") not in (_variants(item, facts) or {""})]
    if there:
        config.hook.pytest_deselected(items=there)
        items[:] = [item for item in items if item not in set(there)]


def _variants(item: pytest.Item, facts: GuestFacts | None) -> set[str]:
    """Return the variants that a test asks for; one that the manifest has not is a UsageError."""
    wanted = {name for mark in item.iter_markers("boots_with") for name in mark.args}
    for name in wanted if facts else ():
        _known(item, "variant", name, facts.variants if facts else ())
    return wanted


def _apply(item: pytest.Item, facts: GuestFacts) -> None:
    required = {feature for mark in item.iter_markers("requires") for feature in mark.args}
    for mark in item.iter_markers("requires"):
        for feature in mark.args:
            _known(item, "feature", feature, facts.all_features)
            if feature not in facts.features:
                reason = f"feature {feature}: not on kernel {facts.kernel} (manifest)"
                item.add_marker(pytest.mark.skip(reason=reason))
    if not any(required <= features for features in facts.kernels.values()):
        raise pytest.UsageError(f"{item.nodeid}: no kernel of the manifest has {' and '.join(sorted(required))}")
    for mark in item.iter_markers("refused_without"):
        feature, number = mark.args
        _known(item, "feature", feature, facts.all_features)
        if feature not in facts.features:
            item.stash[_EXPECTED_REFUSAL] = (number, feature)
    for mark in item.iter_markers("known_issue"):
        kernel = mark.args[0]
        _known(item, "kernel", kernel, facts.kernels)
        # what is wrong with a kernel is wrong whatever its command line
        if kernel in {facts.kernel, plain_kernel(facts.kernel)}:
            reason = f"{mark.kwargs['reason']} ({mark.kwargs['ref']})"
            item.add_marker(pytest.mark.xfail(reason=reason, raises=mark.kwargs["raises"], strict=True))


def _known(item: pytest.Item, kind: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise pytest.UsageError(f"{item.nodeid}: unknown {kind} {name!r} (manifest has: {', '.join(sorted(names))})")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Where a refusal is expected, let the call pass only with exactly that refusal."""
    expected = pyfuncitem.stash.get(_EXPECTED_REFUSAL, None)
    if expected is None:
        return (yield)
    number, feature = expected
    kernel = pyfuncitem.config.stash[GUEST_FACTS].kernel
    because = f"expected refusal {errno_name(number)} because kernel {kernel} lacks {feature}, but it"
    try:
        yield
    except OSError as error:
        if error.errno == number:
            pyfuncitem.user_properties.append(REFUSED_PROPERTY)
            return True
        _fail(f"{because} raised {errno_name(error.errno)}: {error}", error)
    except Exception as error:  # noqa: BLE001  any other exception of the test is the finding here
        _fail(f"{because} raised {type(error).__name__}: {error}", error)
    return pytest.fail(f"{because} succeeded", pytrace=False)


def _fail(line: str, cause: Exception) -> None:
    raise pytest.fail.Exception(line, pytrace=False) from cause
