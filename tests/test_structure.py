"""The structure's measure: rooms, floors, arrows."""

from __future__ import annotations

from graphlib import CycleError

import pytest
import structure


@pytest.mark.parametrize(
    ("module", "room"),
    [
        ("kernel_matrix.vm.slots", "vm"),
        ("kernel_matrix.guest.bpf.loaders.libbpf", "guest.bpf"),
        ("kernel_matrix.guest.agent", "guest"),
        ("kernel_matrix.plugin", "(front door)"),
    ],
)
def test_a_module_is_in_the_room_of_its_package(module: str, room: str) -> None:
    assert structure.room(module) == room


def test_a_room_is_above_all_that_it_imports() -> None:
    rooms = {"a": {"b", "c"}, "b": {"c"}, "c": set(), "d": {"c"}}
    assert structure.floors(rooms) == {"a": 3, "b": 2, "c": 1, "d": 2}
    assert structure.counts(rooms) == {"rooms": 4, "floors": 3, "arrows": 4}


def test_rooms_that_import_each_other_have_no_floors() -> None:
    with pytest.raises(CycleError):
        structure.floors({"a": {"b"}, "b": {"a"}})


def test_the_project_is_within_its_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert structure.main() == 0
    assert "guest.bpf" in capsys.readouterr().out
