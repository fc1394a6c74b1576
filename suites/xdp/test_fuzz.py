"""Generated frames against a model of the contract; `--fuzz` and `--fuzz-seed` make more, and others."""

from __future__ import annotations

import errno

import pytest

from kernel_matrix.guest.bpf.loaders import Object
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.pytest.marks import GUEST_FACTS, with_loaders
from suites.fuzzing import Fuzz
from suites.xdp.conftest import PROGRAM, Counters
from suites.xdp.generated import FAMILIES, FRAMES, Family, counts_as
from suites.xdp.test_counting import XDP_PASS

#: how many frames are run without `--fuzz`
BUDGET = 30 * FRAMES


class Runs:
    """The loaded counter, its runs on data, and what it has counted."""

    def __init__(self, obj: Object, *, runts: bool) -> None:
        self._object = obj
        self._runts = runts
        self._layout = obj.layout("xdp_counters", Counters)
        self._map = obj.map("counters")

    def counted(self) -> Counters:
        """Return the sum over all processors."""
        return sum((self._layout.decode(value) for value in self._map.get_each_cpu(0)), Counters())

    def run(self, frame: bytes) -> tuple[int, bytes] | None:
        """Return the verdict and the data behind the program; None where the kernel does not run it."""
        try:
            return self._object.test_run(PROGRAM, frame)
        except StepError as error:
            if error.errno != errno.EINVAL:
                raise
            return None

    def check(self, frames: list[bytes]) -> None:
        """Run frames, and hold each verdict and the sum of what they count against the model."""
        before, expected = self.counted(), Counters()
        for frame in frames:
            counts = counts_as(frame, runts=self._runts)
            assert self.run(frame) == (None if counts is None else (XDP_PASS, frame)), frame.hex(" ")
            expected += counts or Counters()
        counted = self.counted() - before
        if counted == expected:
            return
        if len(frames) > 1:
            # runs them again; if no half differs, it is the sum alone that does
            middle = len(frames) // 2
            self.check(frames[:middle])
            self.check(frames[middle:])
        assert counted == expected, f"{len(frames)} frames, the first of them {frames[0].hex(' ')}"


# what runs is the same whoever has loaded it, and only libbpf runs a program a thousand times in a second
@with_loaders("libbpf")
def test_generated_frames_count_as_the_contract_says(
    loaded: Object, fuzz: Fuzz, request: pytest.FixtureRequest
) -> None:
    """Tags in every depth, all kinds of types, cut at every byte: verdict, data and counters; the smallest is shown."""
    features = request.config.stash[GUEST_FACTS].features
    runs, done = Runs(loaded, runts="xdp_test_run_runts" in features), 0

    def check(family: Family) -> None:
        nonlocal done
        frames = family.frames()
        runs.check(frames)
        done += len(frames)

    fuzz.check(FAMILIES, BUDGET // FRAMES, check)
    assert done >= BUDGET * fuzz.times
