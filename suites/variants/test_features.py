"""What variants.toml says about a kernel with another command line is true as well: no feature more, none less.

Not with lockdown=confidentiality: there the probes that attach a kprobe are refused for another reason than the one
that they ask about, and say so.
"""

from __future__ import annotations

import pytest

from kernel_matrix.guest.probes.features import PROBES
from kernel_matrix.guest.pytest.marks import GUEST_FACTS, boots_with
from kernel_matrix.shared.outcomes.features import GuestFacts


@boots_with("lsm_bpf", "lockdown_integrity")
@pytest.mark.parametrize("feature", sorted(PROBES))
def test_the_kernel_has_what_the_manifest_says(request: pytest.FixtureRequest, feature: str) -> None:
    """Its kernel's features, and what the variant adds or removes."""
    facts: GuestFacts = request.config.stash[GUEST_FACTS]
    assert PROBES[feature]() == (feature in facts.features)
