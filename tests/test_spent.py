"""A guest in whose kernel a test has left something runs no other test."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

_CONFTEST = """
import pytest
from kernel_matrix.guest.pytest import spent

LEFT = {left!r}

def pytest_configure(config):
    if {worker}:
        config.pluginmanager.register(spent.SpentPlugin(), spent.NAME)

@pytest.fixture(autouse=True)
def check(request, pytestconfig):
    yield
    spent.fail_for(pytestconfig, LEFT if request.node.name in LEFT else ())

@pytest.fixture(autouse=True, scope="module")
def check_file(pytestconfig):
    yield
    spent.fail_for(pytestconfig, LEFT)

def pytest_runtest_logreport(report):
    if report.user_properties:
        print("SPENT", report.nodeid, report.when, report.user_properties)
"""
_TESTS = "def test_a(): pass\ndef test_b(): pass\ndef test_c(): pass\n"


def run(pytester: pytest.Pytester, left: list[str], *, worker: bool = True) -> pytest.RunResult:
    pytester.makeconftest(_CONFTEST.format(left=left, worker=worker))
    pytester.makepyfile(_TESTS)
    return pytester.runpytest_inprocess("-rA", "-s")


def test_what_comes_behind_is_skipped_without_a_report(pytester: pytest.Pytester) -> None:
    """And what a file leaves is no second failure, of a session that has ended."""
    result = run(pytester, ["test_b"])
    assert result.parseoutcomes() == {"passed": 2, "errors": 1}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    (line,) = [line for line in result.outlines if "SPENT" in line]
    assert line.endswith("SPENT test_what_comes_behind_is_skipped_without_a_report.py::test_b teardown [('spent', '')]")
    result.stdout.fnmatch_lines(["*left in the kernel: test_b"])


def test_where_nothing_is_left_everything_runs(pytester: pytest.Pytester) -> None:
    assert run(pytester, []).parseoutcomes() == {"passed": 3}


def test_a_pytest_without_a_controller_goes_on(pytester: pytest.Pytester) -> None:
    """Each leak is a failure of its own there, also a file's."""
    result = run(pytester, ["test_a", "test_b"], worker=False)
    assert result.parseoutcomes() == {"passed": 3, "errors": 3}
