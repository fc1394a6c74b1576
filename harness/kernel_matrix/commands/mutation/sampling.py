"""Choose mutants. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kernel_matrix.commands.mutation.making.mutant import Mutant
from kernel_matrix.shared.errors import ManifestError


def chosen(mutants: Sequence[Mutant], only: Sequence[str], sample: int | None, seed: int) -> tuple[Mutant, ...]:
    """Return those with these ids, or a random sample, or all; the same for the same seed. Raises ManifestError."""
    if only:
        by_id = {mutant.id: mutant for mutant in mutants}
        if unknown := [name for name in only if name not in by_id]:
            raise ManifestError(f"--mutant {unknown[0]}: there is no such mutant")
        return tuple(by_id[name] for name in dict.fromkeys(only))
    if sample is None:
        return tuple(mutants)
    if sample < 1:
        raise ManifestError(f"--sample {sample}: must be at least 1")
    ordered = sorted(mutants, key=lambda mutant: mutant.id)
    picked = {mutant.id for mutant in random.Random(seed).sample(ordered, min(sample, len(ordered)))}  # noqa: S311
    return tuple(mutant for mutant in mutants if mutant.id in picked)
