"""What stands in for a guest on the host must not run anything there."""

from __future__ import annotations

import pytest

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
