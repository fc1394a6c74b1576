"""What each loader does beside the contract that all fulfil: its path into the kernel, its refusals, what it leaves."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from kernel_matrix.guest.bpf import loaders
from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.step_error import StepError, errno_name
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.guest.pytest.refusal import refused
from kernel_matrix.guest.system.deadline import declared, limit
from kernel_matrix.guest.system.netns import Veth, veth
from kernel_matrix.shared.project import build_folder
from suites.kernel_account import shown

__all__ = ["refused"]

#: tells a process that holds what it attached to end by itself
END = signal.SIGUSR1
#: a program of each type, whose sections name no target
FIXTURE = object_path("fixtures/loaders")


@pytest.fixture(scope="module")
def loaded(loader: Loader) -> Iterator[Object]:
    """Return the fixture's object, loaded."""
    with loader.opened(FIXTURE) as obj:
        yield obj


@pytest.fixture
def pair() -> Iterator[Veth]:
    """Return a veth pair."""
    with veth() as made:
        yield made


@dataclass(frozen=True, slots=True)
class Seen:
    """What the kernel has attached, as it says itself."""

    #: the types of the links, sorted: ``perf_event``, ``xdp``
    links: tuple[str, ...]
    #: programs on perf events, sorted: ``kprobe do_x``, ``tracepoint sys_enter_x``
    events: tuple[str, ...]
    #: the probes that were defined in tracefs
    probes: tuple[str, ...]

    @property
    def path(self) -> str:
        """The way by which one probe is attached."""
        if self.probes:
            return "tracefs"
        if self.links == ("perf_event",):
            return "perf event, by link"
        return "perf event, by ioctl" if len(self.events) == 1 and not self.links else f"unknown: {self}"


def seen() -> Seen:
    """Ask the kernel what is attached: bpf_link_get_info_by_fd, BPF_TASK_FD_QUERY, and tracefs."""
    events = [f"{event['fd_type']} {event.get('func') or event.get('tracepoint')}" for event in shown("perf")]
    return Seen(
        tuple(sorted(link["type"] for link in shown("link"))),
        tuple(sorted(events)),
        tuple(Path("/sys/kernel/tracing/dynamic_events").read_text().splitlines()),
    )


def in_words(error: StepError | None, *folders: Path) -> str:
    """Return a refusal as a user of the loader sees it: errno, stage, and the first line of the loader's messages.

    Files are shown without the folders that only this run has.
    """
    assert error is not None
    number = errno_name(error.errno) if error.errno else "no errno"
    line = next(filter(None, error.log.splitlines()), "")
    for folder in (build_folder(), *folders):
        line = line.replace(f"{folder}/", "")
    return f"{number} at {error.stage}" + (f": {line}" if line else "")


@dataclass(frozen=True, slots=True)
class Held:
    """A process that holds what it attached, and the process of the loader: the same, or a program of its own."""

    pid: int
    loader: int


@contextmanager
def holding(name: str, attach: Callable[[Object], object]) -> Iterator[Held]:
    """Run a loader in another process, which opens the fixture, attaches, and waits for its end."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _hold(name, attach, writing)
    os.close(writing)
    try:
        with declared():
            ready = select.select([reading], [], [], limit(60))[0]
        number = os.read(reading, 100) if ready else b""
        if not number.isdigit():
            pytest.fail(f"{name}: nothing attached: {number.decode(errors='replace')}")
        yield Held(pid, int(number))
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _hold(name: str, attach: Callable[[Object], object], writing: int) -> NoReturn:
    """Attach in this fork, write the loader's pid, and wait to be killed, or for `END` to end without detaching."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {END})
        loader = loaders.create(name)
        with loader.opened(FIXTURE) as obj:
            attach(obj)
            process = getattr(loader, "process", None)
            os.write(writing, str(process.pid if process else os.getpid()).encode())
            signal.sigwait({END})
            loader.close()
            os._exit(0)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent shows it
        os.write(writing, f"{type(error).__name__}: {error}".encode()[:4000])
    os._exit(1)
