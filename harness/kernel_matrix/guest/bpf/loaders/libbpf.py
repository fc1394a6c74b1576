"""Load an object with libbpf as a user's own loader does: open, load, attach, read."""

from __future__ import annotations

import ctypes
import errno
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from ctypes import c_bool, c_void_p
from functools import partial
from pathlib import Path
from typing import TypeVar

from kernel_matrix.guest.bpf import loaders
from kernel_matrix.guest.bpf.btf import Btf, Layout
from kernel_matrix.guest.bpf.library import SAMPLE, captured_messages, libbpf
from kernel_matrix.guest.bpf.step_error import Stage, StepError
from kernel_matrix.guest.bpf.steps import (
    Program,
    XdpFlags,
    checked,
    destroy_link,
    kind_of,
    open_object,
    where,
    xdp_attach,
    xdp_detach,
)
from kernel_matrix.guest.bpf.structs import TestRunOpts

_R = TypeVar("_R")


def possible_cpus() -> int:
    """Return the number of values that a per-CPU map has for a key."""
    count = int(libbpf().libbpf_num_possible_cpus())
    if count < 0:
        raise OSError(-count, "possible CPUs")
    return count


class Map:
    """A loaded map, its keys and values as bytes."""

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer
        lib = libbpf()
        self.fd = checked(lib.bpf_map__fd(pointer), "open", "map")
        self._key_size = int(lib.bpf_map__key_size(pointer))
        self._value_size = int(lib.bpf_map__value_size(pointer))

    def get(self, key: int) -> bytes | None:
        """Return the value of a key, None when the map has none; raises StepError."""
        return self._lookup(key, self._value_size)

    def get_each_cpu(self, key: int) -> tuple[bytes, ...]:
        """Return the values of a key in a per-CPU map; the kernel rounds the size of each up to eight bytes."""
        stride = (self._value_size + 7) // 8 * 8
        value = self._lookup(key, stride * possible_cpus()) or b""
        return tuple(value[start : start + self._value_size] for start in range(0, len(value), stride))

    def put(self, key: int, value: bytes) -> None:
        """Set the value of a key; raises StepError."""
        result = libbpf().bpf_map_update_elem(self.fd, self._key(key), value, 0)
        if result < 0:
            raise StepError(-result, "update", "map")

    def keys(self) -> Iterator[int]:
        """Yield the keys, as unsigned integers; raises StepError."""
        last: bytes | None = None
        next_key = ctypes.create_string_buffer(self._key_size)
        while (result := libbpf().bpf_map_get_next_key(self.fd, last, next_key)) == 0:
            last = next_key.raw
            yield int.from_bytes(last, "little")
        # ENOENT: no key follows
        if result != -errno.ENOENT:
            raise StepError(-result, "lookup", "map keys")

    def _lookup(self, key: int, size: int) -> bytes | None:
        value = ctypes.create_string_buffer(size)
        result = libbpf().bpf_map_lookup_elem(self.fd, self._key(key), value)
        if result == -errno.ENOENT:
            return None
        if result < 0:
            raise StepError(-result, "lookup", "map")
        return value.raw

    def _key(self, key: int) -> bytes:
        return key.to_bytes(self._key_size, "little")


class RingBuffer:
    """The consumer's end of a ring buffer."""

    def __init__(self, ring: Map) -> None:
        self._records: list[bytes] = []
        # kept: libbpf calls it as long as the buffer exists
        self._callback = SAMPLE(self._take)
        self._pointer = libbpf().ring_buffer__new(ring.fd, self._callback, None, None)
        if not self._pointer:
            raise StepError(ctypes.get_errno(), "open", "ring buffer")

    def _take(self, _: int, data: int, size: int) -> int:
        self._records.append(ctypes.string_at(data, size))
        return 0

    def consume(self) -> list[bytes]:
        """Return every record that has been submitted since the last call."""
        result = libbpf().ring_buffer__consume(self._pointer)
        if result < 0:
            raise StepError(-result, "read", "ring buffer")
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        """Unmap the buffer."""
        libbpf().ring_buffer__free(self._pointer)


class Object:
    """A loaded object."""

    def __init__(self, pointer: int, stack: ExitStack) -> None:
        self._pointer = pointer
        self._stack = stack
        self._lib = libbpf()

    @property
    def btf(self) -> Btf:
        """The object's own BTF."""
        return Btf(self._lib.bpf_object__btf(self._pointer))

    def layout(self, struct: str, record: type[_R]) -> Layout[_R]:
        """Match a struct of the object with a dataclass."""
        return Layout.of(self.btf, struct, record)

    def map(self, name: str) -> Map:
        """Return a map; raises KeyError."""
        pointer = self._lib.bpf_object__find_map_by_name(self._pointer, name.encode())
        if not pointer:
            raise KeyError(f"the object has no map {name}")
        return Map(pointer)

    def ring_buffer(self, name: str) -> RingBuffer:
        """Return the consumer's end of a ring buffer; closed with the object."""
        ring = RingBuffer(self.map(name))
        self._stack.callback(ring.close)
        return ring

    def program(self, name: str) -> int:
        """Return libbpf's pointer of a program; raises KeyError."""
        pointer = self._lib.bpf_object__find_program_by_name(self._pointer, name.encode())
        if not pointer:
            raise KeyError(f"the object has no program {name}")
        return int(pointer)

    def programs(self) -> dict[str, int]:
        """Return libbpf's pointers of all programs."""
        pointers: dict[str, int] = {}
        pointer: int | None = None
        while pointer := self._lib.bpf_object__next_program(self._pointer, pointer):
            pointers[self._lib.bpf_program__name(pointer).decode()] = pointer
        return pointers

    def attach(self, *names: str) -> ExitStack:
        """Attach programs where their sections say (all, when none is named); closing the result detaches them."""
        links = ExitStack()
        self._stack.push(links)
        for name, pointer in self.programs().items():
            if not names or name in names:
                self._link(links, pointer, where(pointer), partial(self._lib.bpf_program__attach, pointer))
        return links

    def attach_kprobe(self, name: str, symbol: str) -> ExitStack:
        """Attach a program to a kernel function; closing the result detaches it."""
        links, pointer = ExitStack(), self.program(name)
        self._stack.push(links)
        step = partial(self._lib.bpf_program__attach_kprobe, pointer, c_bool(False), symbol.encode())  # noqa: FBT003
        self._link(links, pointer, f"kprobe {symbol}", step)
        return links

    def attach_tracepoint(self, name: str, category: str, event: str) -> ExitStack:
        """Attach a program to a tracepoint; closing the result detaches it."""
        links, pointer = ExitStack(), self.program(name)
        self._stack.push(links)
        step = partial(self._lib.bpf_program__attach_tracepoint, pointer, category.encode(), event.encode())
        self._link(links, pointer, f"tracepoint {category}:{event}", step)
        return links

    def _link(self, links: ExitStack, pointer: int, what: str, attach: Callable[[], int | None]) -> None:
        with captured_messages() as messages:
            link = attach()
            if not link:
                raise StepError(ctypes.get_errno(), "attach", what, messages(), kind_of(pointer))
        links.callback(destroy_link, link, what)

    def attach_xdp(self, name: str, ifindex: int, mode: XdpFlags) -> ExitStack:
        """Attach a program to an interface by netlink; closing the result detaches it."""
        links = ExitStack()
        self._stack.push(links)
        xdp_attach(Program(name, self.program(name)).fd, ifindex, mode)
        links.callback(xdp_detach, ifindex, mode)
        return links

    def test_run(self, name: str, data: bytes) -> tuple[int, bytes]:
        """Run a program on data without an interface; return its verdict and the resulting data."""
        source = ctypes.create_string_buffer(data, len(data))
        target = ctypes.create_string_buffer(len(data) + 256)
        run = TestRunOpts(
            sz=ctypes.sizeof(TestRunOpts),
            data_in=ctypes.cast(source, c_void_p),
            data_out=ctypes.cast(target, c_void_p),
            data_size_in=len(data),
            data_size_out=len(target),
            repeat=1,
        )
        checked(
            self._lib.bpf_prog_test_run_opts(Program(name, self.program(name)).fd, ctypes.byref(run)), "test_run", name
        )
        return int(run.retval), target.raw[: run.data_size_out]


@contextmanager
def opened(path: Path, *, max_entries: dict[str, int] | None = None) -> Iterator[Object]:
    """Open and load an object; detach and close everything at the end.

    ``max_entries`` resizes maps before they are created. Raises StepError with the kernel's errno.
    """
    lib = libbpf()
    with open_object(path) as pointer, ExitStack() as stack:
        obj = Object(pointer, stack)
        for name, entries in (max_entries or {}).items():
            result = lib.bpf_map__set_max_entries(lib.bpf_object__find_map_by_name(pointer, name.encode()), entries)
            if result < 0:
                raise StepError(-result, "open", f"max_entries of {name}")
        with captured_messages() as messages:
            result = lib.bpf_object__load(pointer)
            if result < 0:
                raise StepError(-result, _stage(messages()), path.name, messages())
        yield obj


def _stage(messages: str) -> Stage:
    """Return the stage at which bpf_object__load() has stopped: it creates the maps, then loads the programs."""
    return "map_create" if re.search(r"^libbpf: map '[^']*': failed to create", messages, re.MULTILINE) else "load"


class Libbpf:
    """libbpf in this process."""

    name = "libbpf"

    @property
    def version(self) -> str:
        """The version of libbpf."""
        return str(libbpf().libbpf_version_string().decode()).removeprefix("v")

    def opened(
        self, path: Path, *, max_entries: dict[str, int] | None = None
    ) -> AbstractContextManager[loaders.Object]:
        """Open and load an object, as `Loader` specifies."""
        return opened(path, max_entries=max_entries)

    def close(self) -> None:
        """Do nothing: what was opened is closed with its object."""


def create() -> Libbpf:
    """Return the loader."""
    return Libbpf()
