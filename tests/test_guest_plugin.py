"""What stands in for a guest on the host must not run anything there."""

from __future__ import annotations

import pytest

from harness.guest.plugin import only

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("arguments", [[], ["test_kills.py"], ["test_kills.py::test_x"]])
def test_a_kernel_that_is_given_up_collects_nothing_even_if_it_is_named(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    pytester.makeconftest("""
from harness.guest.plugin import GonePlugin

def pytest_configure(config):
    config.pluginmanager.register(GonePlugin())
""")
    pytester.makepyfile(test_kills='raise SystemExit("imported on the host")\ndef test_x(): pass\n')
    result = pytester.runpytest_inprocess(*arguments)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.no_fnmatch_line("*imported on the host*")


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["suites"], ["suites/a/test_x.py", "suites/test_y.py"]),
        (["."], ["suites/a/test_x.py", "suites/test_y.py"]),
        (["suites/a/"], ["suites/a/test_x.py"]),
        (["suites/test_y.py::test_1[6.1]", "suites/test_z.py"], ["suites/test_y.py::test_1[6.1]"]),
        (["suites/a/test_x.py::test_1", "suites/a"], ["suites/a/test_x.py::test_1", "suites/a/test_x.py"]),
        (["suites/b"], []),
    ],
)
def test_a_guest_for_some_files_collects_those_of_the_command_line(arguments: list[str], kept: list[str]) -> None:
    assert only(arguments, ("suites/a/test_x.py", "suites/test_y.py")) == kept
