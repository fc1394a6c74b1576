"""An object in the kernel for as long as its tests run: loaded when one of them needs it, each refusal kept."""

from __future__ import annotations

import errno
from collections.abc import Collection, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from kernel_matrix.diagnose.data.sections import TRAMPOLINES
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.hooks import targets
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.loading import LoadedObject, loaded
from kernel_matrix.guest.bpf.foreign.undeclared import Undeclared
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.system.privilege import Cap, only_effective

_Refusal = StepError | Undeclared
#: Sections of programs that are attached once for each time that they are loaded. Of a replacement the kernel forgets
#: its target: bpf_tracing_prog_attach() attaches only TRACING and LSM again, and these only to functions of the kernel.
#: Without bpf_cookie libbpf keeps in a map where a USDT probe was (usdt.c), and takes the next for a collision.
_ONCE = frozenset({"freplace", "usdt"})


class Trial:
    """One object: whole, or program by program where that is refused."""

    def __init__(self, foreign: Foreign, pins: Path) -> None:
        self.foreign = foreign
        self._pins = pins
        self._stack = ExitStack()
        self._whole: LoadedObject | _Refusal | None = None
        #: the program that is loaded alone, and what unloads it
        self._alone: tuple[str, LoadedObject] | None = None
        self._of_alone = self._stack.enter_context(ExitStack())
        self._refusals: dict[str, _Refusal] = {}
        #: program -> where it was attached last, or why not
        self._attached: dict[str, str | _Refusal] = {}
        #: whether this kernel attaches a trampoline's program once for each load; None: it has not been asked
        self._forgets: bool | None = None
        #: program, empty for the whole object, and capabilities -> how loading with these was refused
        self._loads: dict[tuple[str, frozenset[Cap]], StepError | None] = {}

    def whole(self) -> LoadedObject:
        """Return the object, loaded whole; raises StepError, Undeclared."""
        if self._whole is None:
            try:
                self._whole = self._stack.enter_context(loaded(self.foreign, self._pins))
            except (StepError, Undeclared) as error:
                # its programs are tried one by one, each with the verifier's log
                self._whole = error if self.foreign.file.programs else self._explained(error)
        if isinstance(self._whole, LoadedObject):
            return self._whole
        raise self._whole

    @contextmanager
    def having(self, program: str) -> Generator[LoadedObject]:
        """Provide the object with this program, loaded whole if possible, else alone; raises StepError, Undeclared."""
        if program in self._refusals:
            raise self._refusals[program]
        try:
            whole = self.whole()
        except (StepError, Undeclared):
            whole = None
        if self._attached_once(program):
            with ExitStack() as stack:
                yield self._load_alone(program, None if whole else self._pins, stack)
        elif self.is_in_whole(program):
            assert whole is not None
            yield whole
        else:
            if self._alone is None or self._alone[0] != program:
                self._alone = None
                self._of_alone.close()
                self._alone = program, self._load_alone(program, self._pins, self._of_alone)
            yield self._alone[1]

    def _load_alone(self, program: str, pins: Path | None, stack: ExitStack) -> LoadedObject:
        """Load the object with only this program until ``stack`` closes; raises StepError, Undeclared."""
        try:
            return stack.enter_context(loaded(self.foreign, pins, program))
        except (StepError, Undeclared) as error:
            self._refusals[program] = self._explained(error, program)
            raise self._refusals[program] from None

    def is_in_whole(self, program: str) -> bool:
        """Whether the object could be loaded whole, and this program with it: one of SEC("?...") is not."""
        return isinstance(self._whole, LoadedObject) and program in self._whole.programs

    def attach(self, program: str, place: Place) -> str:
        """Load a program, attach it and detach it again; return where. Raises StepError, Undeclared."""
        try:
            self._attached[program] = where = self._attached_to(program, place)
        except (StepError, Undeclared) as error:
            self._attached[program] = error
            raise
        # kernels before "bpf: Allow trampoline re-attach for tracing and lsm programs" (5.13) forget the target, too
        if self._forgets is None and self._kind(program) in TRAMPOLINES and not self._attached_once(program):
            self._forgets = self._is_forgotten(program, place)
        return where

    def _attached_to(self, program: str, place: Place) -> str:
        with self.having(program) as obj, ExitStack() as stack:
            return targets.attach(self.foreign, obj, program, place, stack)

    def _kind(self, program: str) -> str:
        """Return the first word of its section."""
        return self.foreign.section(program).partition("/")[0].partition(".")[0]

    def _is_forgotten(self, program: str, place: Place) -> bool:
        """Ask the kernel whether it refuses to attach a program again; raises StepError for another refusal."""
        try:
            self._attached_to(program, place)
        except StepError as error:
            if error.errno != errno.ENOENT:
                raise
            return True
        return False

    def attaches(self, program: str, place: Place) -> bool:
        """Whether a program has a target to be attached to, as the last attempt found it; raises StepError."""
        if program not in self._attached:
            with suppress(StepError, Undeclared):
                self.attach(program, place)
        if isinstance(outcome := self._attached[program], StepError):
            raise outcome
        return isinstance(outcome, str)

    def load_refused(self, program: str, caps: Collection[Cap]) -> StepError | None:
        """Load the program as `having` has it with exactly these capabilities; return the refusal.

        Programs that are loaded whole share the answers. Nothing is pinned, so no map is there already.
        """
        key = self._only(program), frozenset(caps)
        if key not in self._loads:
            with ExitStack() as stack:
                try:
                    with only_effective(caps):
                        stack.enter_context(loaded(self.foreign, None, key[0]))
                    self._loads[key] = None
                except StepError as error:
                    self._loads[key] = error
        return self._loads[key]

    def known_to_load(self, program: str) -> frozenset[Cap]:
        """Return the fewest capabilities with which it has been loaded yet; empty: it has not been tried."""
        only = self._only(program)
        known = [caps for (name, caps), refusal in self._loads.items() if name == only and refusal is None]
        return min(known, key=len, default=frozenset())

    def _only(self, program: str) -> str:
        """Return the program if it is loaded alone, empty if with the whole object."""
        return "" if self.is_in_whole(program) else program

    def _attached_once(self, program: str) -> bool:
        """Whether it can be attached once for each time that it is loaded, or is part of a struct."""
        kind = self._kind(program)
        return (
            kind in _ONCE
            or (bool(self._forgets) and kind in TRAMPOLINES)
            or bool(self.foreign.traced_program(program))
            or any(program in members for members in self.foreign.file.structs.values())
        )

    def _explained(self, error: _Refusal, program: str = "") -> _Refusal:
        """Return the refusal again, with the verifier's log where it was the verifier's."""
        if not isinstance(error, StepError) or error.stage != "load":
            return error
        try:
            with loaded(self.foreign, self._pins, program, explain=True):
                return error
        except (StepError, Undeclared) as explained:
            return explained

    def close(self) -> None:
        """Unload it."""
        self._stack.close()
