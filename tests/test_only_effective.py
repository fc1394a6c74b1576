"""Capabilities that a thread gives up for a block, and takes back."""

from __future__ import annotations

import pytest

from kernel_matrix.guest.bpf.step_error import Credentials
from kernel_matrix.guest.system.privilege import Cap, only_effective


@pytest.mark.parametrize("wanted", [(), (Cap.BPF,), (Cap.NET_ADMIN, Cap.PERFMON)])
def test_a_thread_has_exactly_these_and_then_all_again(wanted: tuple[Cap, ...]) -> None:
    """Those of them that this process has: a user has none, and keeps none."""
    before = Credentials.this_process().effective
    have = [cap for cap in wanted if before >> cap & 1]
    with only_effective(have):
        assert Credentials.this_process().effective == sum(1 << cap for cap in have)
    assert Credentials.this_process().effective == before


def test_an_error_gives_them_back_as_well() -> None:
    before = Credentials.this_process().effective
    with pytest.raises(KeyError), only_effective(()):
        raise KeyError
    assert Credentials.this_process().effective == before
