"""Fixtures for every suite."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import leaks, loaders
from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.pytest import spent
from kernel_matrix.shared.channel.protocol import FACTS, OBSERVED
from kernel_matrix.shared.project import IN_PROCESS_LOADER

#: name, and facts as JSON values
Record = Callable[[str, object], None]
#: name, and value
Observed = Callable[[str, str], None]
#: name without ``kernel.``, and value
Sysctl = Callable[[str, int], None]


@pytest.fixture(autouse=True, scope="session")
def kernel(request: pytest.FixtureRequest) -> str:
    """Return the name of the kernel that the test runs on; the plugin adds it to every node id as first parameter."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def loader(request: pytest.FixtureRequest) -> Iterator[Loader]:
    """Return the loader with which tests load objects: each of the table's, one after another, or libbpf.

    It is the same for all tests of a file, so that a loader with a process of its own starts it once.
    """
    with closing(loaders.create(getattr(request, "param", IN_PROCESS_LOADER))) as created:
        yield created


@pytest.fixture(autouse=True)
def nothing_left_in_the_kernel(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail a test that leaves programs, maps, links, pins or probes in the kernel."""
    with _nothing_left(pytestconfig):
        yield


@pytest.fixture(autouse=True, scope="module")
def nothing_left_by_a_file(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail the last test of a file whose fixtures of a larger scope leave something in the kernel."""
    with _nothing_left(pytestconfig):
        yield


@contextmanager
def _nothing_left(config: pytest.Config) -> Iterator[None]:
    before = leaks.present()
    yield
    spent.fail_for(config, leaks.wait_for_release(before))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Return a function that sends facts about this kernel to the host: ``results/latest/<name>/<kernel>.json``."""
    properties = request.node.user_properties
    return lambda name, facts: properties.append((FACTS + name, json.dumps(facts)))


@pytest.fixture
def observed(request: pytest.FixtureRequest) -> Observed:
    """Return a function that puts what the test observed into its cell: a name, and a value of one line.

    The baseline has it, and another value is a change that gates. A test may not observe two values of one name.
    """
    observations: dict[str, str] = {}

    def observe(name: str, value: str) -> None:
        if not name or not value or len(f"{name}{value}".splitlines()) > 1:
            raise ValueError(f"an observation is a name and a value of one line each: {name!r}, {value!r}")
        if observations.setdefault(name, value) != value:
            raise ValueError(f"{name} was observed twice: {observations[name]!r}, {value!r}")
        request.node.user_properties.append((OBSERVED, json.dumps([name, value])))

    return observe


@pytest.fixture
def sysctl() -> Iterator[Sysctl]:
    """Yield a function that sets a kernel.* sysctl of this guest; the value is restored after the test."""
    with ExitStack() as restore:

        def set_value(name: str, value: int) -> None:
            path = Path("/proc/sys/kernel", name)
            restore.callback(path.write_text, path.read_text())
            path.write_text(str(value))

        yield set_value
