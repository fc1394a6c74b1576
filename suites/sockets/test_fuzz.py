"""Generated sequences of calls against a model of the contract; `--fuzz` and `--fuzz-seed` make more, and others."""

from __future__ import annotations

from kernel_matrix.guest.pytest.marks import with_loaders
from suites.fuzzing import Fuzz
from suites.sockets.conftest import Monitor
from suites.sockets.generated import Step, script_of, sequences
from suites.sockets.model import totals_of

#: how many sequences are run without `--fuzz`
BUDGET = 24


# what runs is the same whoever has loaded it
@with_loaders("libbpf")
def test_generated_calls_are_reported_as_the_contract_says(monitor: Monitor, fuzz: Fuzz) -> None:
    """Calls of all kinds on sockets of all kinds, and on what is none: each event, and the totals."""

    def check(steps: tuple[Step, ...]) -> None:
        monitor.begin()
        events = monitor.watch(script_of(steps))
        assert monitor.totals() == totals_of(events)

    fuzz.check(sequences(), BUDGET, check)
