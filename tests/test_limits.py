"""The limit of a test's phases: what it ends, what it leaves alone."""

from __future__ import annotations

import pytest

from kernel_matrix.guest.pytest.limits import seconds_for

pytest_plugins = ["pytester"]

_PLUGIN = """
from kernel_matrix.guest.pytest.limits import LimitPlugin
from kernel_matrix.guest.pytest import marks

def pytest_configure(config):
    marks.register(config)
    config.pluginmanager.register(LimitPlugin({seconds}))
"""


def run(pytester: pytest.Pytester, body: str, seconds: float | None = 0.2) -> pytest.RunResult:
    pytester.makeconftest(_PLUGIN.format(seconds=seconds))
    pytester.makepyfile(
        "import select, signal, pytest\nfrom kernel_matrix.guest.system.deadline import declared, wait_until\n" + body
    )
    return pytester.runpytest_inprocess("-rA", "-p", "no:faulthandler")


@pytest.mark.parametrize(
    ("body", "outcomes", "phase"),
    [
        ("def test_x(): select.select([], [], [])", {"failed": 1}, "call"),
        ("def test_x():\n    while True: pass", {"failed": 1}, "call"),
        # caught once, and then again
        (
            "def test_x():\n    try: signal.pause()\n    except BaseException: signal.pause()",
            {"failed": 1},
            "call",
        ),
        ("@pytest.fixture\ndef y(): signal.pause()\ndef test_x(y): pass", {"errors": 1}, "setup"),
        (
            "@pytest.fixture\ndef y():\n    yield\n    signal.pause()\ndef test_x(y): pass",
            {"passed": 1, "errors": 1},
            "teardown",
        ),
        ("@pytest.mark.timeout(0.1)\ndef test_x(): signal.pause()", {"failed": 1}, "call"),
    ],
)
def test_what_takes_too_long_ends_where_it_stands(
    pytester: pytest.Pytester, body: str, outcomes: dict[str, int], phase: str
) -> None:
    result = run(pytester, body + "\ndef test_after(): pass\n")
    assert result.parseoutcomes() == {"passed": 1, **outcomes} | ({"passed": 2} if outcomes.get("passed") else {})
    result.stdout.re_match_lines([f".*no end of the {phase} within 0 s \\(its limit\\), in .*:[0-9]+"])


_WAITS = "select.select([], [], [], 0.3)"


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ("def test_x():\n    with declared(): select.select([], [], [], 0.4)", 0.2),
        ("ready = iter([0] * 800 + [1])\ndef test_x(): wait_until(lambda: next(ready), 'it')", 0.2),
        ("@pytest.mark.timeout(0)\ndef test_x(): select.select([], [], [], 0.4)", 0.2),
        ("def test_x(): select.select([], [], [], 0.4)", 0),
        ("def test_x(): select.select([], [], [], 0.4)", None),
        # each phase has it anew
        (
            f"@pytest.fixture\ndef y():\n    {_WAITS}\n    yield\n    {_WAITS}\ndef test_x(y): {_WAITS}",
            0.5,
        ),
    ],
)
def test_what_has_a_deadline_or_no_limit_goes_on(pytester: pytest.Pytester, body: str, seconds: float | None) -> None:
    assert run(pytester, body + "\n", seconds).parseoutcomes() == {"passed": 1}


def test_what_comes_behind_a_deadline_is_still_limited(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_x():\n    with declared(): pass\n    signal.pause()\n")
    assert result.parseoutcomes() == {"failed": 1}


def test_other_threads_of_the_test_are_shown(pytester: pytest.Pytester) -> None:
    body = """
import threading
def stands_here(): threading.Event().wait()
def test_x():
    thread = threading.Thread(target=stands_here, name="other", daemon=True)
    thread.start()
    thread.join()
"""
    result = run(pytester, body)
    result.stdout.fnmatch_lines(["*Captured stacks call*", "other:", "*in stands_here*"])


@pytest.mark.parametrize("mark", ["timeout", "timeout()", "timeout(-1)", "timeout('1')", "timeout(seconds=1)"])
def test_a_limit_that_is_none_is_an_error(pytester: pytest.Pytester, mark: str) -> None:
    result = run(pytester, f"@pytest.mark.{mark}\ndef test_x(): pass\n")
    result.stdout.fnmatch_lines(["*a limit is timeout(seconds), 0 for none"])
    assert result.ret != 0


@pytest.mark.parametrize(
    ("speed", "silence", "seconds"), [("1", "20", 10.0), ("9", "200", 90.0), ("40", "200", 100.0), ("9", "10", 5.0)]
)
def test_the_default_limit_is_far_below_the_guests(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, speed: str, silence: str, seconds: float
) -> None:
    """The default limit is ten seconds of the reference, or half of the silence that gives a guest up."""
    monkeypatch.setenv("HARNESS_SPEED", speed)
    monkeypatch.setenv("HARNESS_SILENCE", silence)
    assert seconds_for(request.node, None) == seconds
