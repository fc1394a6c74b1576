"""From pytest's reports and a guest's ending to what a cell says. Pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_matrix.shared import console, expect, pytest_internals
from kernel_matrix.shared.cells import Outcome
from kernel_matrix.shared.ending import End, Ending
from kernel_matrix.shared.protocol import DIAGNOSIS, KERNEL_LOG, STACKS, VERIFIER

#: what a guest's end states of the test that it ran
_OF_GUEST = frozenset({Outcome.CRASH, Outcome.LOST})
#: how much of a console goes into a cell
_CONSOLE_LINES = 60


def text_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the failure's text without the line about its worker that pytest puts in front."""
    return pytest_internals.plain_text(report.longrepr or "").strip()


def phase_of(report: pytest.TestReport) -> expect.Phase:
    """Return what decides a test's outcome: the report's result, and of a failure what explains it."""
    stated = dict(report.user_properties).get(expect.OUTCOME_PROPERTY)
    text = text_of(report)
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        # the line that a person reads first
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


def ends_test(report: pytest.TestReport) -> bool:
    """Whether a test has no more reports: its teardown has come, or its guest has died in it."""
    stated = dict(report.user_properties).get(expect.OUTCOME_PROPERTY)
    return report.when == "teardown" or stated in _OF_GUEST


def _sections(report: pytest.TestReport, name: str) -> str:
    # pytest names a section of an item "Captured <name> <when>"
    return "\n".join(content for title, content in report.sections if name in title)


def outcome_of(last: Ending) -> Outcome:
    """Return the outcome of the test in which a guest ended."""
    return Outcome.CRASH if last.end is End.PANIC else Outcome.LOST


def describe_death(last: Ending, nodeid: str | None, path: Path) -> str:
    """Say what happened to a guest: the line a person reads first, then the console of that test.

    A guest that died between two tests has a cell for it, that of the test which it was to run next. It is said that
    this one had not begun, and the whole console is shown: what ended the guest is before it. Without a console (its
    relay or its machine is gone) that is not known.
    """
    text = console.since_test(last.console, nodeid) if nodeid else None
    before = text is None and bool(last.console)
    where = f"{'before' if before else 'in'} {nodeid}" if nodeid else "outside every test"
    shown = console.excerpt(last.console if text is None else text, _CONSOLE_LINES)
    doing = [last.doing] if last.doing else []
    return "\n".join([f"{last.describe()}, {where}", *doing, f"console ({path}):", shown])
