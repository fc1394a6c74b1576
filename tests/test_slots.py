"""How many guests run at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kernel_matrix.vm import slots


@pytest.mark.parametrize(
    ("cores", "emulated", "free_mib", "guests"),
    [
        (2, False, 24_000, 2),
        (2, True, 24_000, 5),
        (64, False, 24_000, 31),  # 24000 // (512 + 256)
        (8, True, 1_000, 1),
        (2, False, 100, 1),  # one guest is tried whatever the memory says
    ],
)
def test_cores_and_memory_decide(cores: int, emulated: bool, free_mib: int, guests: int) -> None:
    assert slots.guests_at_once(cores=cores, emulated=emulated, free_mib=free_mib, memory_mib=512) == guests


def test_available_memory_is_read_in_mib() -> None:
    assert slots.free_memory_mib("MemTotal: 9 kB\nMemAvailable:   2097152 kB\n") == 2048
    with pytest.raises(ValueError, match="MemAvailable"):
        slots.free_memory_mib("")


def test_a_slot_is_free_again_when_its_holder_lets_go(tmp_path: Path) -> None:
    made = slots.make(tmp_path, 2)
    first, second = slots.try_take(made), slots.try_take(made)
    assert first is not None
    assert second is not None
    assert slots.try_take(made) is None
    os.close(first)
    third = slots.try_take(made)
    assert third is not None
    os.close(second)
    os.close(third)
