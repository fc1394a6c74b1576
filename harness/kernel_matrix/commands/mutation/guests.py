"""A warm guest that tries objects: restored behind its collection, used for many, replaced when it is spoiled."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.config import options
from kernel_matrix.plan.preparation import Plan, PlannedGuest
from kernel_matrix.relay import client
from kernel_matrix.relay.client import Relay
from kernel_matrix.shared import wire
from kernel_matrix.shared.channel import frames, worker_input
from kernel_matrix.shared.channel.worker_input import WorkerInput
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.shared.outcomes import mutants
from kernel_matrix.shared.outcomes.mutants import Begin, Result, Trial
from kernel_matrix.shared.project import Project
from kernel_matrix.vm.ending import Ending

#: what the agent runs instead of execnet's worker; to the relay it is a bootstrap line
_BOOTSTRAP = "from kernel_matrix.guest.pytest import trials; trials.main()"
#: trials after which a guest is replaced by a fresh one, which takes a second
_MOST_TRIALS = 50
#: trials in which a test that has passed without a mutant is believed
_CLEARED_FOR = 10
_CHUNK = 1 << 16


class GuestLost(Exception):
    """The guest died; the text is one line. ``test``: the test that was running, empty when none was."""

    def __init__(self, reason: str, test: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.test = test


@dataclass(frozen=True, slots=True)
class Target:
    """What a guest runs trials of: a kernel, the project's tests."""

    project: Project
    plan: Plan
    guest: PlannedGuest

    @property
    def begin(self) -> bytes:
        """What the guest is sent before it is saved: the same for every guest of the kernel."""
        mutation = self.project.mutation
        tests = dict.fromkeys(path for paths in mutation.tests.values() for path in paths)
        words = (*options.leading_arguments(self.project), "-p", "no:cacheprovider", *mutation.options, *tests)
        work = WorkerInput(facts=self.plan.guest_facts(self.guest))
        return Begin(words, json.loads(json.dumps(worker_input.pack(work, None)))).encoded()


class Warm:
    """Tries objects in one guest after another of the same worker."""

    def __init__(self, target: Target, guest: PlannedGuest) -> None:
        self._target = target
        self._guest = guest
        self._open = contextlib.ExitStack()
        self._relay: Relay | None = None
        self._stream = frames.Reader()
        self._trials = 0
        #: tests that have passed without a mutant in this guest, not long ago
        self.cleared: set[str] = set()

    def close(self) -> None:
        """End the guest."""
        self._relay = None
        self._open.close()

    def try_object(self, data: bytes, trial: Trial) -> Result:
        """Run a trial; raises GuestLost when the guest does not survive it."""
        relay = self._relay or self._started()
        self._trials += 1
        if self._trials % _CLEARED_FOR == 0:
            self.cleared.clear()
        result = None
        test = ""
        try:
            relay.sending.write(frames.frame(mutants.OBJECT, data) + trial.encoded())
            for kind, payload in self._received(relay):
                if kind == mutants.TEST:
                    test = payload.decode()
                elif kind == mutants.RESULT:
                    result = mutants.result_of(payload)
                    break
        except BrokenPipeError:
            pass  # the relay has ended, and what it wrote says why
        if result is None:
            raise self._lost(test)
        if result.spoiled or self._trials >= _MOST_TRIALS:
            self.close()
        return result

    def _started(self) -> Relay:
        """Start a guest and wait until it has collected; raises GuestLost."""
        self._open = contextlib.ExitStack()
        words = self._guest.relay()
        relay = self._open.enter_context(client.started(words, _BOOTSTRAP, self._target.project.root))
        self._relay, self._stream, self._trials = relay, frames.Reader(), 0
        self.cleared.clear()
        try:
            relay.sending.write(self._target.begin)
        except BrokenPipeError:
            raise self._lost("") from None
        left = len(frames.ANSWER)
        while left:
            data = relay.receiving.read(left)
            if not data:
                raise self._lost("")
            left -= len(data)
        return relay

    def _received(self, relay: Relay) -> Iterator[tuple[bytes, bytes]]:
        while data := relay.receiving.read(_CHUNK):
            yield from self._stream.feed(data)

    def _lost(self, test: str) -> GuestLost:
        """Return how the guest ended, as its relay wrote it."""
        self.close()
        try:
            ending = wire.decode(self._guest.ending_path.read_bytes(), Ending)
        except FileNotFoundError:
            return GuestLost("its relay was killed", test)
        return GuestLost(ending.reason, test)


def valid(result: Result, console: Path) -> Result:
    """Return a result that says something about the object; raises HarnessError for any other."""
    if result.invalid:
        raise HarnessError(f"{result.invalid}; console: {console}")
    return result
