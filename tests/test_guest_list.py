"""Which guests a run plans: kernels, and their variants that a selected test asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernel_matrix.plan.guest_list import GuestList, RunRequest, list_guests
from kernel_matrix.plan.sharding import Part, Shard, Unit
from kernel_matrix.shared.errors import ManifestError
from tests.projects import HERE, ROOT

_LOCKED = ("+lockdown_integrity", "+lockdown_confidentiality")


def _wishes(*arguments: str, named: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> RunRequest:
    return RunRequest(named, arguments=arguments, guests=None, locked=False, silence=None, options=options)


def _planned(*named: str, arguments: tuple[str, ...] = ("suites",)) -> list[str]:
    guest_list = list_guests(HERE, _wishes(*arguments, named=named))
    return [form.name for _, forms in guest_list.kernels for form in forms]


def test_a_kernel_is_booted_with_each_variant_that_matters() -> None:
    """A kernel is booted once with each command line that changes it."""
    assert _planned("5.10") == ["5.10", "5.10+lsm_bpf", *[f"5.10{variant}" for variant in _LOCKED]]
    # bpf is in its list anyway
    assert _planned("6.1") == ["6.1", *[f"6.1{variant}" for variant in _LOCKED]]


def test_a_named_guest_is_booted_alone_or_with_others() -> None:
    assert _planned("6.1+lockdown_integrity") == ["6.1+lockdown_integrity"]
    assert _planned("6.1+lockdown_integrity", "7.3") == ["6.1+lockdown_integrity", "7.3", *[f"7.3{e}" for e in _LOCKED]]
    with pytest.raises(ManifestError, match=r"^6\.1\+lsm_bpf: no selected test asks for it"):
        _planned("6.1+lsm_bpf")


def test_without_a_test_for_it_no_variant_is_booted() -> None:
    assert _planned("5.10", arguments=("suites/features",)) == ["5.10"]
    assert _planned("5.10", arguments=()) == ["5.10"]


def test_an_unknown_variant_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(ManifestError, match=r"unknown kernel '6\.1\+x' .*one of: lsm_bpf, lockdown_integrity"):
        _planned("6.1+x")


def _shards(count: int, *arguments: str, options: tuple[str, ...] = ()) -> list[GuestList]:
    request = _wishes(*arguments, options=options)
    return [list_guests(HERE, replace(request, shard=Shard(index, count))) for index in range(1, count + 1)]


def _parts(count: int, *arguments: str, options: tuple[str, ...] = ()) -> list[Part]:
    return [shard.part for shard in _shards(count, *arguments, options=options) if shard.part]


def test_shards_have_every_file_on_every_guest_once() -> None:
    """All shards agree on what the whole run is."""
    parts = _parts(3, "suites")
    units = [unit for part in parts for unit in part.units]
    assert len(units) == len(set(units))
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "suites").rglob("test_*.py"))
    assert [unit.file for unit in sorted(units) if unit.kernel == "6.1"] == files
    assert [unit.file for unit in units if unit.kernel == "5.10+lsm_bpf"].count("suites/variants/test_lsm.py") == 1
    assert len({(part.division, part.project, part.selection, part.kernels) for part in parts}) == 1


def test_a_shard_boots_what_it_has_files_for() -> None:
    """Two files on four kernels in eight shards: each has one kernel to boot."""
    for shard in _shards(8, "suites/environment"):
        assert shard.part
        assert [Unit(form.name, file) for form in shard.guests for file in form.arguments] == list(shard.part.units)
        assert len(shard.kernels) == len(shard.guests) == 1


def test_a_shard_without_files_boots_nothing() -> None:
    assert _shards(9, "suites/environment")[-1].kernels == ()


def test_another_machine_may_decide_what_is_booted_here() -> None:
    dealt = {"6.1": ("suites/execve/test_counts.py",), "5.10+lsm_bpf": ()}
    guest_list = list_guests(HERE, replace(_wishes("suites"), dealt=dealt))
    assert {form.name: form.arguments for form in guest_list.guests} == dealt


def test_node_ids_that_name_a_kernel_are_divided_for_that_kernel() -> None:
    (part,) = _parts(1, "suites/execve/test_counts.py::test_x[6.1]", "suites/features")
    assert [unit.kernel for unit in part.units if "execve" in unit.file] == ["6.1"]
    assert part.named


def test_what_failed_last_is_not_divided() -> None:
    with pytest.raises(ManifestError, match=r"^--shard: which tests failed last differs between machines"):
        _parts(2, "suites", options=("--lf",))
