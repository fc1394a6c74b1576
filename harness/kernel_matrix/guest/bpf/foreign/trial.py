"""An object in the kernel for as long as its tests run: loaded when one of them needs it, each refusal kept."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.loading import LoadedObject, loaded
from kernel_matrix.guest.bpf.foreign.undeclared import Undeclared
from kernel_matrix.guest.bpf.step_error import StepError

_Refusal = StepError | Undeclared


class Trial:
    """One object: whole, or program by program where that is refused."""

    def __init__(self, foreign: Foreign, pins: Path) -> None:
        self.foreign = foreign
        self._pins = pins
        self._stack = ExitStack()
        self._whole: LoadedObject | _Refusal | None = None
        self._refusals: dict[str, _Refusal] = {}

    def is_in_whole(self, program: str) -> bool:
        """Whether the object could be loaded whole, and this program with it: one of SEC("?...") is not."""
        return isinstance(self._whole, LoadedObject) and program in self._whole.programs

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
        if whole is not None and program in whole.programs and not self._registered_once(program):
            yield whole
            return
        with ExitStack() as stack:
            try:
                alone = stack.enter_context(loaded(self.foreign, self._pins, program))
            except (StepError, Undeclared) as error:
                self._refusals[program] = self._explained(error, program)
                raise self._refusals[program] from None
            yield alone

    def _registered_once(self, program: str) -> bool:
        """Whether it is part of a struct, which the kernel registers once for each time that it is loaded."""
        return any(program in members for members in self.foreign.file.structs.values())

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
