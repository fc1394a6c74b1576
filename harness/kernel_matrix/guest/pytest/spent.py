"""A guest in whose kernel a test has left something runs no other test: what its worker has been sent runs elsewhere.

The controller learns it from the test's report (`kernel_matrix.session.scheduler.KernelScheduling.retire`). By then the
worker has been sent more tests, because a worker needs to know the next test before it runs one: it skips these.
"""

from __future__ import annotations

from collections.abc import Collection, Generator

import pytest

from kernel_matrix.shared.channel.protocol import SPENT

#: the name under which the plugin is registered
NAME = "matrix-spent"
_SPENT = pytest.StashKey[bool]()


def mark(config: pytest.Config) -> None:
    """Run no other test in this guest; to be called before the report is made of the phase that found it."""
    config.stash[_SPENT] = True


def fail_for(config: pytest.Config, left: Collection[str]) -> None:
    """Fail the phase when something is left in the kernel, and run no other test in this guest.

    Once for a worker: fixtures of a larger scope, which end with it, find the same again.
    """
    if not left or (config.pluginmanager.hasplugin(NAME) and config.stash.get(_SPENT, False)):
        return
    mark(config)
    pytest.fail(f"left in the kernel: {', '.join(sorted(left))}", pytrace=False)


class SpentPlugin:
    """Hooks of a worker; a pytest without a controller goes on."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Skip a test without a report, which would be an outcome."""
        return True if item.config.stash.get(_SPENT, False) else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Say in the report that this guest is not to be used again."""
        report = yield
        if item.config.stash.get(_SPENT, False):
            report.user_properties.append((SPENT, ""))
        return report
