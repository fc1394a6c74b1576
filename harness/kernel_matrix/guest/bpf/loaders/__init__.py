"""Loaders: one module for each way to load an object, and here the contract that all of them fulfil.

A test requests the fixture ``loader``. The table's ``loaders`` names the modules here with which each such test runs;
every module has ``create() -> Loader``. A project with its own loader overrides the fixture in its conftest.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol, TypeVar

from kernel_matrix.guest.bpf.btf import Layout
from kernel_matrix.guest.bpf.steps import XdpFlags
from kernel_matrix.shared.bpf.compiled import Compiled

_R = TypeVar("_R")

#: what loaders have compiled in this process; whoever reports it to the host, which keeps it, takes it out
new: list[Compiled] = []


class Map(Protocol):
    """A loaded map: keys are unsigned integers, values bytes. Every method raises StepError."""

    def get(self, key: int) -> bytes | None:
        """Return the value of a key, None when the map has none."""

    def get_each_cpu(self, key: int) -> tuple[bytes, ...]:
        """Return the values of a key in a per-CPU map, one for each CPU."""

    def put(self, key: int, value: bytes) -> None:
        """Set the value of a key."""

    def keys(self) -> Iterator[int]:
        """Yield the keys."""


class RingBuffer(Protocol):
    """The consumer's end of a ring buffer."""

    def consume(self) -> list[bytes]:
        """Return every record that has been submitted since the last call; raises StepError."""


class Object(Protocol):
    """A loaded object; closing it detaches and closes what was attached and opened through it."""

    def layout(self, struct: str, record: type[_R]) -> Layout[_R]:
        """Match a struct of the object with a dataclass."""

    def map(self, name: str) -> Map:
        """Return a map; raises KeyError."""

    def ring_buffer(self, name: str) -> RingBuffer:
        """Return the consumer's end of a ring buffer; raises KeyError."""

    def attach(self, *names: str) -> ExitStack:
        """Attach programs where their sections say (all, when none is named); closing the result detaches them.

        Raises StepError.
        """

    def attach_kprobe(self, name: str, symbol: str) -> ExitStack:
        """Attach a program to a kernel function; closing the result detaches it. Raises StepError."""

    def attach_tracepoint(self, name: str, category: str, event: str) -> ExitStack:
        """Attach a program to a tracepoint; closing the result detaches it. Raises StepError."""

    def attach_xdp(self, name: str, ifindex: int, mode: XdpFlags) -> ExitStack:
        """Attach a program to an interface; closing the result detaches it. Raises StepError."""

    def test_run(self, name: str, data: bytes) -> tuple[int, bytes]:
        """Run a program on data without an interface; return its verdict and the resulting data."""


class Loader(Protocol):
    """A way to load objects; every refusal is a StepError with stage, the kernel's errno and the loader's messages."""

    @property
    def name(self) -> str:
        """The loader's name in node ids and reports."""

    @property
    def version(self) -> str:
        """The version of its library."""

    def opened(self, path: Path, *, max_entries: dict[str, int] | None = None) -> AbstractContextManager[Object]:
        """Open and load an object; ``max_entries`` resizes maps before they are created."""

    def close(self) -> None:
        """Release what the loader holds beside its objects, such as a process of its own."""


def create(name: str) -> Loader:
    """Return the loader of the module of that name; raises ModuleNotFoundError for an unknown one."""
    loader: Loader = importlib.import_module(f"{__name__}.{name}").create()
    return loader
