"""The manifest says what a kernel can do; the kernel itself is asked."""

from __future__ import annotations

import pytest

from kernel_matrix.guest.probes.features import PROBES
from kernel_matrix.guest.pytest.marks import GUEST_FACTS
from kernel_matrix.shared.outcomes.features import GuestFacts


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> GuestFacts:
    """Return what the manifest says about this guest's kernel."""
    return request.config.stash[GUEST_FACTS]


@pytest.mark.parametrize("feature", sorted(PROBES))
def test_the_kernel_has_exactly_the_features_of_the_manifest(feature: str, facts: GuestFacts) -> None:
    """A feature listed and missing is as wrong as one that is there and not listed."""
    assert PROBES[feature]() == (feature in facts.features)


def test_every_feature_of_the_manifest_has_a_probe(facts: GuestFacts) -> None:
    """And every probe a feature: the test above leaves none out."""
    assert set(PROBES) == facts.all_features
