"""What a report and an ending say in a cell."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from kernel_matrix.session import reports
from kernel_matrix.shared.outcomes.cells import Outcome
from kernel_matrix.vm.ending import End, Ending

pytest_plugins = ["pytester"]


class Worker:
    """Stands in for xdist's, of which pytest prints a line in front of every failure."""

    workerinfo: ClassVar = {
        "id": "gw0",
        "sysplatform": "linux",
        "version_info": (3, 13, 5),
        "executable": "/bin/python3",
    }
    config = None


def failing(pytester: pytest.Pytester, body: str) -> list[pytest.TestReport]:
    run = pytester.inline_run(pytester.makepyfile(body))
    calls = [report for report in run.getreports("pytest_runtest_logreport") if report.when == "call"]
    for report in calls:
        report.__dict__["node"] = Worker()
    return calls


def test_a_failure_begins_with_what_went_wrong(pytester: pytest.Pytester) -> None:
    (report,) = failing(pytester, "def test_x():\n    assert 1 + 1 == 3\n")
    assert "[gw0]" in report.longreprtext
    report.sections.append(("kernel log call", "[    1.0] a line"))
    phase = reports.phase_of(report)
    assert phase.text.splitlines()[0] == "assert (1 + 1) == 3"
    assert phase.log == "[    1.0] a line"
    assert "[gw0]" not in phase.text


def test_a_refusal_that_fails_a_test_is_explained(pytester: pytest.Pytester) -> None:
    (report,) = failing(pytester, "def test_x():\n    assert False\n")
    report.sections += [("verifier log", "R0 !read_ok"), ("diagnosis", "cause: x\nremedy: y")]
    phase = reports.phase_of(report)
    assert phase.diagnosis == "cause: x\nremedy: y"
    assert phase.verifier == "R0 !read_ok"


def test_a_skip_says_its_reason_alone(pytester: pytest.Pytester) -> None:
    (report,) = failing(pytester, "import pytest\ndef test_x():\n    pytest.skip('feature x')\n")
    assert reports.phase_of(report).text == "feature x"


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (End.PANIC, Outcome.CRASH),
        (End.EXITED, Outcome.LOST),
        (End.SILENT, Outcome.LOST),
        (End.NO_BOOT, Outcome.LOST),
    ],
)
def test_only_the_kernels_own_fault_is_a_crash(end: End, outcome: Outcome) -> None:
    assert reports.outcome_of(Ending("6.1", end, "why")) is outcome


def test_a_death_shows_the_console_of_its_own_test() -> None:
    console = "harness: start a.py::x[6.1]\nold\nharness: start a.py::y[6.1]\nnew\n"
    last = Ending("6.1", End.PANIC, "the kernel panicked", release="6.1.0", console=console)
    assert reports.describe_death(last, "a.py::y[6.1]", Path("c.log")).splitlines() == [
        "kernel 6.1 (6.1.0): the kernel panicked, in a.py::y[6.1]",
        "console (c.log):",
        "harness: start a.py::y[6.1]",
        "new",
    ]
    assert "old" in reports.describe_death(last, None, Path("c.log"))


def test_a_silent_guest_shows_what_it_was_doing() -> None:
    last = Ending("6.1", End.SILENT, "no word", release="6.1.0", console="harness: start a.py::y[6.1]\n", doing="asked")
    assert reports.describe_death(last, "a.py::y[6.1]", Path("c.log")).splitlines()[:2] == [
        "kernel 6.1 (6.1.0): no word, in a.py::y[6.1]",
        "asked",
    ]


def test_a_death_between_two_tests_is_not_said_to_be_in_the_next() -> None:
    last = Ending("6.1", End.EXITED, "QEMU ended", release="6.1.0", console="harness: start a.py::x[6.1]\nold\n")
    assert reports.describe_death(last, "a.py::y[6.1]", Path("c.log")).splitlines() == [
        "kernel 6.1 (6.1.0): QEMU ended, before a.py::y[6.1]",
        "console (c.log):",
        "harness: start a.py::x[6.1]",
        "old",
    ]


def test_a_death_without_a_console_may_be_in_the_test() -> None:
    """Without a console there is no proof that the test had not begun."""
    last = Ending("6.1", End.EXITED, "host one is gone", release="6.1.0")
    assert reports.describe_death(last, "a.py::y[6.1]", Path("c.log")).splitlines()[0] == (
        "kernel 6.1 (6.1.0): host one is gone, in a.py::y[6.1]"
    )


_OBSERVING = "from kernel_matrix.guest.pytest.fixtures import observed\ndef test_x(observed):\n"


def test_what_a_test_observed_is_in_its_report(pytester: pytest.Pytester) -> None:
    """Sorted, and the same once; also what it observed before it failed."""
    body = "    observed('b', 'link')\n    observed('a', '1: x')\n    observed('b', 'link')\n    assert False\n"
    (report,) = failing(pytester, _OBSERVING + body)
    assert reports.observed(report) == (("a", "1: x"), ("b", "link"))


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        (["'a', '1'", "'a', '2'"], "a was observed twice: '1', '2'"),
        (["'a', ''"], "of one line each"),
        (["'', '1'"], "of one line each"),
        (["'a', '1\\n2'"], "of one line each"),
        (["'a\\nb', '1'"], "of one line each"),
    ],
)
def test_what_is_no_observation_fails_the_test(pytester: pytest.Pytester, calls: list[str], why: str) -> None:
    (report,) = failing(pytester, _OBSERVING + "".join(f"    observed({call})\n" for call in calls))
    assert why in reports.text_of(report)
    assert len(reports.observed(report)) == len(calls) - 1
