"""Pytest's reports and a guest's ending turned into the contents of a cell. Pure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel_matrix.shared import pytest_internals
from kernel_matrix.shared.channel import console
from kernel_matrix.shared.channel.protocol import DIAGNOSIS, KERNEL_LOG, OBSERVED, STACKS, VERIFIER
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.outcomes.cells import Outcome
from kernel_matrix.vm.ending import End, Ending

#: outcomes that a guest's end gives to the test that ran in it
_OF_GUEST = frozenset({Outcome.CRASH, Outcome.LOST})
#: lines of a console that go into a cell
_CONSOLE_LINES = 60


def text_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the failure's text without the line about its worker that pytest puts in front."""
    return pytest_internals.plain_text(report.longrepr or "").strip()


def phase_of(report: pytest.TestReport) -> expect.Phase:
    """Return what decides a test's outcome: the report's result, and the texts that explain a failure."""
    stated = dict(report.user_properties).get(expect.OUTCOME_PROPERTY)
    text = text_of(report)
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        # the most important line first
        text = f"{crash.message.partition(chr(10))[0]}\n{text}"
    if report.skipped and isinstance(report.longrepr, tuple):
        text = report.longrepr[2].removeprefix("Skipped: ")
    if stacks := _sections(report, STACKS):
        text = f"{text}\nother threads:\n{stacks}"
    return expect.Phase(
        when=report.when,
        result=report.outcome,
        xfail_reason=getattr(report, "wasxfail", None),
        stated=stated if isinstance(stated, str) else None,
        text=text,
        duration=report.duration,
        log=_sections(report, KERNEL_LOG) if report.failed else "",
        verifier=_sections(report, VERIFIER),
        diagnosis=_sections(report, DIAGNOSIS),
    )


def observed(report: pytest.TestReport) -> tuple[tuple[str, str], ...]:
    """Return what the test has observed so far (kernel_matrix.guest.pytest.fixtures.observed), sorted."""
    pairs = (json.loads(str(text)) for key, text in report.user_properties if key == OBSERVED)
    return tuple(sorted({(name, value) for name, value in pairs}))


def ends_test(report: pytest.TestReport) -> bool:
    """Whether this is a test's last report: that of its teardown, or that its guest died in it."""
    stated = dict(report.user_properties).get(expect.OUTCOME_PROPERTY)
    return report.when == "teardown" or stated in _OF_GUEST


def _sections(report: pytest.TestReport, name: str) -> str:
    # pytest names a section of an item "Captured <name> <when>"
    return "\n".join(content for title, content in report.sections if name in title)


def outcome_of(ending: Ending) -> Outcome:
    """Return the outcome of the test in which a guest ended."""
    return Outcome.CRASH if ending.end is End.PANIC else Outcome.LOST


def describe_death(ending: Ending, nodeid: str | None, path: Path) -> str:
    """Describe what happened to a guest: the most important line first, then the console of that test.

    If a guest died between two tests, the cell is that of the test that was to run next. The text says that this test
    had not started, and has the whole console: the cause is before the test. Without a console (the relay or the
    machine is gone) it is unknown whether the test had started.
    """
    text = console.since_test(ending.console, nodeid) if nodeid else None
    before = text is None and bool(ending.console)
    where = f"{'before' if before else 'in'} {nodeid}" if nodeid else "outside every test"
    shown = console.excerpt(ending.console if text is None else text, _CONSOLE_LINES)
    doing = [ending.doing] if ending.doing else []
    return "\n".join([f"{ending.describe()}, {where}", *doing, f"console ({path}):", shown])
