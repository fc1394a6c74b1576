"""A line for each kernel: where it is, how far, how many are red."""

from __future__ import annotations

import io
import types
from typing import Any, cast

import pytest
from rich.console import Console

from kernel_matrix.session.display.progress import DONE, WAITING, ProgressPlugin
from kernel_matrix.shared.outcomes.expect import OUTCOME_PROPERTY

KERNELS = ("6.1", "6.12-rt")


@pytest.fixture
def progress() -> ProgressPlugin:
    manager = types.SimpleNamespace(hasplugin=lambda _: False, getplugin=lambda _: None)
    config = cast("pytest.Config", types.SimpleNamespace(pluginmanager=manager))
    plugin = ProgressPlugin(config, KERNELS, console=Console(file=io.StringIO(), force_terminal=True))
    plugin.pytest_xdist_setupnodes()
    return plugin


def node(kernel: str) -> Any:  # noqa: ANN401 - xdist has no such thing without a guest
    return types.SimpleNamespace(gateway=types.SimpleNamespace(spec=types.SimpleNamespace(kernel=kernel)))


def report(kernel: str, when: str, outcome: str = "passed", stated: str = "") -> Any:  # noqa: ANN401 - as above
    properties = [(OUTCOME_PROPERTY, stated)] if stated else []
    return types.SimpleNamespace(
        node=node(kernel),
        when=when,
        outcome=outcome,
        failed=outcome == "failed",
        skipped=outcome == "skipped",
        passed=outcome == "passed",
        longrepr=None,
        sections=[],
        user_properties=properties,
        duration=0.1,
    )


def test_a_kernel_waits_runs_and_is_done(progress: ProgressPlugin) -> None:
    assert [line.split()[0] for line in progress.lines()] == list(KERNELS)
    assert all(WAITING in line for line in progress.lines())
    progress.pytest_xdist_node_collection_finished(node("6.1"), ["a.py::x[6.1]", "a.py::y[6.1]"])
    progress.pytest_runtest_logstart("a.py::x[6.1]")
    first, second = progress.lines()
    assert "0/2" in first
    assert first.endswith("a.py::x")
    assert WAITING in second
    for when in ("setup", "call", "teardown"):
        progress.pytest_runtest_logreport(report("6.1", when))
    progress.pytest_runtest_logstart("a.py::y[6.1]")
    assert "1/2" in progress.lines()[0]
    progress.pytest_runtest_logreport(report("6.1", "call", "failed", "crash"))
    first, _ = progress.lines()
    assert "2/2" in first
    assert "1 red" in first
    assert first.endswith(DONE)


def test_a_second_guest_does_not_change_the_number_of_tests(progress: ProgressPlugin) -> None:
    for ids in (["a.py::x[6.12-rt]", "a.py::y[6.12-rt]"], ["a.py::y[6.12-rt]"]):
        progress.pytest_xdist_node_collection_finished(node("6.12-rt"), ids)
    assert "0/2" in progress.lines()[1]


def test_it_is_gone_at_the_end_and_may_end_twice(progress: ProgressPlugin) -> None:
    progress.pytest_sessionfinish()
    progress.pytest_unconfigure()
    assert progress.lines() == []
    progress.pytest_runtest_logstart("a.py::x[6.1]")
