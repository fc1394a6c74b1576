"""features.toml: what the reader accepts, and that the file itself is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kernel_matrix.guest.probes.features import PROBES
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes.features import Feature, parse_features

_FILE = Path(__file__).parents[1] / "vmimages" / "features.toml"


def test_a_feature_is_read_in_the_order_of_the_file() -> None:
    text = "".join(f'[{name}]\nmeaning = "m"\nsince = "5.8"\ncommit = "c"\n' for name in ("b", "a"))
    assert parse_features(text, source="f") == (Feature("b", "m", "5.8", "c"), Feature("a", "m", "5.8", "c"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[a", "f: "),
        ("a = 1", "f: a: not a feature"),
        ('[a]\nmeaning = "m"\nsince = "5.8"', "f: feature a: commit must be a line of text"),
        ('[a]\nmeaning = " "\nsince = "5.8"\ncommit = "c"', "f: feature a: meaning must be a line of text"),
        ("[a]\nsince = 5.8", "f: feature a: meaning must be a line of text"),
        ('[a]\nsinze = "5.8"', "f: feature a: unknown key 'sinze' (known: meaning, since, commit)"),
    ],
)
def test_a_wrong_file_is_one_clear_line(text: str, line: str) -> None:
    with pytest.raises(ManifestError, match=re.escape(line)) as caught:
        parse_features(text, source="f")
    assert "\n" not in str(caught.value)


def test_every_feature_cites_its_commit() -> None:
    features = parse_features(_FILE.read_text(), source=_FILE.name)
    assert features
    for feature in features:
        assert re.fullmatch(r"[0-9a-f]{12} \(.+\)|not in mainline: .+|number not known: \(.+\)", feature.commit), (
            feature
        )
        assert re.fullmatch(r"\d+\.\d+", feature.since), feature


def test_every_feature_has_a_probe_and_every_probe_a_feature() -> None:
    assert set(PROBES) == {feature.name for feature in parse_features(_FILE.read_text(), source=_FILE.name)}
