"""A foreign object of one's own: loaded anew, its programs attached, its maps and events read by its BTF."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kernel_matrix.guest.bpf import costing, steps
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.hooks import targets
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.loading import LoadedObject, loaded
from kernel_matrix.guest.bpf.foreign.scenarios.reading import Events, MapView
from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.bpf.loaders.libbpf import Map
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import XdpFlags
from kernel_matrix.shared.bpf import object_types
from kernel_matrix.shared.bpf.object_types import ObjectTypes
from kernel_matrix.shared.bpf.values import ValueMismatch


class Attached:
    """An object whose programs are attached, until `detach` or the end of the test."""

    def __init__(self, foreign: Foreign, obj: LoadedObject, place: Place, stack: ExitStack) -> None:
        self.place = place
        self._foreign = foreign
        self._obj = obj
        self._stack = stack
        self._links = stack.enter_context(ExitStack())
        self._types: ObjectTypes | None = None

    @property
    def types(self) -> ObjectTypes:
        """What the object's BTF says; raises ValueMismatch where it has none."""
        if self._types is None:
            self._types = object_types.read(self._foreign.path)
        return self._types

    def attach(self, program: str, xdp: XdpFlags) -> str:
        """Attach a program; return where, in words. Raises StepError, Undeclared."""
        return targets.attach(self._foreign, self._obj, program, self.place, self._links, xdp)

    def skipped(self) -> dict[str, int]:
        """Return how often the kernel has not run a program of the object (`costing.runs_skipped`); 0 is left out."""
        counts = {name: costing.runs_skipped(program.fd) for name, program in self._obj.programs.items()}
        return {name: count for name, count in counts.items() if count}

    def detach(self) -> None:
        """Detach all programs; maps and events stay, and change no more."""
        self._links.close()

    def map(self, name: str) -> MapView:
        """Return a map; raises ValueMismatch for one that the object lacks, or that has no keys."""
        return MapView(self.types.keyed(name), self._obj.maps[name], self.types.values)

    def events(self, name: str, struct: str = "") -> Events:
        """Return the events of a ring buffer or perf buffer from now on.

        ``struct``: what they are; empty: what the map declares. Raises ValueMismatch.
        """
        return Events(self.types.buffer(name), self._obj.maps[name], self.types, struct, self._stack)

    def variable(self, name: str) -> Any:  # noqa: ANN401 - a value of C
        """Return a global variable's value; raises ValueMismatch."""
        own = self.types.variable(name)
        data = Map(self._section(own.section)).get(0)
        assert data is not None
        return self.types.values.read(own.type, data[own.offset : own.offset + own.size])

    def _section(self, name: str) -> int:
        """Return libbpf's pointer of the map of a section, which libbpf names after the object, too."""
        lib = libbpf()
        for known, pointer in self._obj.maps.items():
            if lib.bpf_map__is_internal(pointer) and known.endswith(name):
                return pointer
        raise ValueMismatch(f"the object has no section {name}")


@contextmanager
def attached(
    foreign: Foreign, pins: Path, place: Place, programs: Sequence[str] = (), xdp: XdpFlags = XdpFlags.NATIVE
) -> Generator[Attached]:
    """Load an object anew and attach programs of it for the block: these, or all that are not called by others.

    It is loaded whole, as its own loader does; where that is refused, with these programs alone. Raises StepError,
    Undeclared.
    """
    own = Path(tempfile.mkdtemp(dir=pins))
    with ExitStack() as stack:
        stack.callback(own.rmdir)
        obj = _loaded(foreign, own, programs, stack)
        made = Attached(foreign, obj, place, stack)
        for name in programs or _attachable(foreign, obj):
            made.attach(name, xdp)
        yield made


def _loaded(foreign: Foreign, pins: Path, programs: Sequence[str], stack: ExitStack) -> LoadedObject:
    """Load the object whole, unless one of these programs is not loaded of itself (``SEC("?...")``)."""
    if not any(foreign.file.programs[name].startswith("?") for name in programs):
        try:
            return stack.enter_context(loaded(foreign, pins))
        except StepError:
            if not programs:
                raise
    return stack.enter_context(loaded(foreign, pins, *programs))


def _attachable(foreign: Foreign, obj: LoadedObject) -> list[str]:
    """Return the programs that are attached, not called by others."""
    called = frozenset().union(*foreign.file.tables.values())
    return [
        name
        for name, program in obj.programs.items()
        if name not in called and steps.kind_of(program.pointer) not in targets.CALLED
    ]
