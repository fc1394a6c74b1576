"""Which guests a run plans: kernels, and their variants that a selected test asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from harness import manifest
from harness.errors import ManifestError
from harness.features import VARIANT
from harness.preparation import Wishes, _Wanted

ROOT = Path(__file__).resolve().parent.parent
_KNOWN = manifest.load(ROOT / "vmimages")
_LOCKED = ("+lockdown_integrity", "+lockdown_confidentiality")


def _planned(*named: str, arguments: tuple[str, ...] = ("suites",)) -> list[str]:
    wishes = Wishes(named, arguments=arguments, guests=None, locked=False, silence=None)
    wanted = _Wanted.of(ROOT, _KNOWN, wishes, named)
    kernels = manifest.select(_KNOWN, [name.partition(VARIANT)[0] for name in named])
    return [guest.name for kernel in kernels for guest in wanted.guests(kernel, cast("Any", None))]


def test_a_kernel_is_booted_with_each_command_line_that_changes_it() -> None:
    assert _planned("5.10") == ["5.10", "5.10+lsm_bpf", *[f"5.10{each}" for each in _LOCKED]]
    # bpf is in its list anyway
    assert _planned("6.1") == ["6.1", *[f"6.1{each}" for each in _LOCKED]]


def test_a_guest_that_is_named_is_booted_alone_or_beside_other_kernels() -> None:
    assert _planned("6.1+lockdown_integrity") == ["6.1+lockdown_integrity"]
    assert _planned("6.1+lockdown_integrity", "7.3") == ["6.1+lockdown_integrity", "7.3", *[f"7.3{e}" for e in _LOCKED]]
    assert _planned("6.1+lsm_bpf") == []


def test_without_a_test_for_it_no_variant_is_booted() -> None:
    assert _planned("5.10", arguments=("suites/features",)) == ["5.10"]
    assert _planned("5.10", arguments=()) == ["5.10"]


def test_a_variant_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(ManifestError, match=r"unknown kernel '6\.1\+x' .*one of: lsm_bpf, lockdown_integrity"):
        _planned("6.1+x")
