"""Values that Hypothesis generates, the same in every run with the same seed, and shrunk where a check fails.

What is generated is decided by the seed alone. So there is no data base of earlier failures, and the constants of the
modules that happen to be imported, which Hypothesis would mix in, are left out. Reading them is slow, too. And each
value is a new one: Hypothesis would make five of six by changing little of the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from unittest import mock

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.internal.constants_ast import Constants
from hypothesis.strategies import SearchStrategy

from kernel_matrix.guest.system.deadline import limit
from kernel_matrix.guest.system.upkeep.alive import working

_T = TypeVar("_T")
#: seconds on the reference machine: what a test may take without ``--fuzz``, with the shrinking of a failure
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fuzz:
    """How much is generated, and from which seed."""

    #: how many times as much as usual
    times: int = 1
    seed: int = 0

    def check(self, values: SearchStrategy[_T], count: int, check: Callable[[_T], None]) -> None:
        """Check that many values, times the option; raise the error of the smallest one that fails."""

        def one(value: _T) -> None:
            check(value)

        steps = settings(
            max_examples=count * self.times,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=tuple(HealthCheck),
            database=None,
            deadline=None,
            report_multiple_bugs=False,
        )
        with (
            mock.patch.object(providers, "_get_local_constants", Constants),
            mock.patch.object(ConjectureRunner, "generate_mutations_from"),
            working(limit(_SECONDS * self.times)),
        ):
            seed(self.seed)(steps(given(values)(one)))()
