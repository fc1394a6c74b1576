"""Read the maps, variables and events of a loaded object, as its BTF describes them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from typing import Any

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.library import PERF_LOST, PERF_SAMPLE, libbpf
from kernel_matrix.guest.bpf.loaders.libbpf import Map, RingBuffer
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.undo import Undo
from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.shared.bpf import values
from kernel_matrix.shared.bpf.object_types import RING_BUFFER, MapType, ObjectTypes
from kernel_matrix.shared.bpf.values import ValueMismatch, Values

#: pages of each processor's buffer, a power of two
_PAGES = 64


class MapView(Mapping[Any, Any]):
    """A map, its keys and values as the BTF describes them; a value of a per-CPU map is the sum of all processors'."""

    def __init__(self, own: MapType, pointer: int, types: Values) -> None:
        self._own = own
        self._map = Map(pointer)
        self._types = types

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - a value of C
        """Return the value of a key; raises KeyError where the map has none, ValueMismatch for what is no key."""
        if self._own.per_cpu:
            return values.total(self.each_cpu(key))
        data = self._map.get(self._number(key))
        if data is None:
            raise KeyError(key)
        return self._types.read(self._own.value, data)

    def __setitem__(self, key: Any, value: Any) -> None:  # noqa: ANN401 - values of C
        """Set the value of a key; members that are not named are 0. Raises ValueMismatch, StepError."""
        if self._own.per_cpu:
            raise ValueMismatch(f"map {self._own.name} has a value for each processor: it is only read")
        data = self._types.write(self._own.value, value, f"value of {self._own.name}")
        self._map.put(self._number(key), data)

    def each_cpu(self, key: Any) -> list[Any]:  # noqa: ANN401 - a value of C
        """Return the values of a key of a per-CPU map, one for each processor; raises KeyError."""
        each = self._map.get_each_cpu(self._number(key))
        if not each:
            raise KeyError(key)
        return [self._types.read(self._own.value, data) for data in each]

    def __iter__(self) -> Iterator[Any]:
        """Yield the keys, in the same order in each run; those that are structs are dicts."""
        size = self._types.types.size(self._own.key)
        for number in sorted(self._map.keys()):
            yield self._types.read(self._own.key, number.to_bytes(size, "little"))

    def __len__(self) -> int:
        """Return the number of entries."""
        return sum(1 for _ in self)

    def _number(self, key: Any) -> int:  # noqa: ANN401 - a value of C
        """Return a key's bytes as the number that `Map` takes."""
        return int.from_bytes(self._types.write(self._own.key, key, f"key of {self._own.name}"), "little")


class PerfBuffer:
    """The consumer's end of a perf buffer of all processors."""

    def __init__(self, ring: Map) -> None:
        self._records: list[bytes] = []
        self._lost = 0
        # kept: libbpf calls them as long as the buffer exists
        self._callbacks = PERF_SAMPLE(self._take), PERF_LOST(self._lose)
        self._pointer = libbpf().perf_buffer__new(ring.fd, _PAGES, *self._callbacks, None, None)
        if not self._pointer:
            raise StepError(ctypes.get_errno(), "open", "perf buffer")

    def _take(self, _: int, __: int, data: int, size: int) -> None:
        self._records.append(ctypes.string_at(data, size))

    def _lose(self, _: int, __: int, count: int) -> None:
        self._lost += count

    def consume(self) -> list[bytes]:
        """Return every record since the last call, processor by processor; raises StepError when some were lost."""
        steps.checked(libbpf().perf_buffer__consume(self._pointer), "read", "perf buffer")
        if self._lost:
            raise StepError(0, "read", f"perf buffer: {self._lost} events were lost")
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        """Unmap the buffers."""
        libbpf().perf_buffer__free(self._pointer)


class Events:
    """The events of a ring buffer or perf buffer since it was opened, as the BTF describes them."""

    def __init__(self, own: MapType, pointer: int, types: ObjectTypes, struct: str, undo: Undo) -> None:
        self._types = types.values
        self._record = types.record(struct, own.name)
        self._buffer = RingBuffer(Map(pointer)) if own.kind == RING_BUFFER else PerfBuffer(Map(pointer))
        undo.callback(self._buffer.close)
        #: whether they are in the order in which they were written: a perf buffer has an order for each processor only
        self.ordered = own.kind == RING_BUFFER
        self._buffer.consume()
        self._events: list[Any] = []

    def all(self, **where: Any) -> list[Any]:  # noqa: ANN401 - values of C
        """Return the events that have come, of these members; an event without a known struct is its bytes."""
        for data in self._buffer.consume():
            self._events.append(self._types.read(self._record, data) if self._record else data)
        if not where:
            return list(self._events)
        wanted = self._types.wanted(self._record, where, "where")
        return [event for event in self._events if values.holds(wanted, event)]

    def wait(self, count: int, **where: Any) -> list[Any]:  # noqa: ANN401 - values of C
        """Return the events of these members, once there are so many; raises TimeoutError."""
        wait_until(lambda: len(self.all(**where)) >= count, f"{count} events")
        return self.all(**where)
