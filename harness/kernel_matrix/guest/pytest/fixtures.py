"""Fixtures that every suite has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import leaks
from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.bpf.loaders.libbpf import Libbpf
from kernel_matrix.shared.protocol import FACTS

#: the facts' name, the facts as JSON has them
Record = Callable[[str, object], None]
#: name below kernel., value
Sysctl = Callable[[str, int], None]


@pytest.fixture(autouse=True, scope="session")
def kernel(request: pytest.FixtureRequest) -> str:
    """Return the name of the kernel the test runs on; the guest's plugin makes it the first part of every node id."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def loader() -> Loader:
    """Return what the tests load objects with."""
    return Libbpf()


@pytest.fixture(autouse=True)
def nothing_left_in_the_kernel() -> Iterator[None]:
    """Fail a test after which there are programs, maps, links, pins or probes that were not there before."""
    before = leaks.present()
    yield
    left = leaks.wait_for_release(before)
    if left:
        pytest.fail(f"left in the kernel: {', '.join(sorted(left))}", pytrace=False)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Give a function that hands facts about this kernel to the host: ``results/latest/<name>/<kernel>.json``."""
    properties = request.node.user_properties
    return lambda name, facts: properties.append((FACTS + name, json.dumps(facts)))


@pytest.fixture
def sysctl() -> Iterator[Sysctl]:
    """Give a function that sets a kernel.* sysctl of this guest; the test's end puts it back."""
    with ExitStack() as restore:

        def set_value(name: str, value: int) -> None:
            path = Path("/proc/sys/kernel", name)
            restore.callback(path.write_text, path.read_text())
            path.write_text(str(value))

        yield set_value
