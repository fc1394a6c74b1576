"""What goes from stage to stage is a value: frozen, and without fields that nobody declared."""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil

import msgspec
import pytest

from kernel_matrix import diagnose, results
from kernel_matrix.shared.bpf import compatibility, costs, object_table
from kernel_matrix.shared.outcomes import capability_table, cells, expect

_MODULES = [
    *(importlib.import_module(f"{room.__name__}.{module.name}") for room in (diagnose, results)
      for module in pkgutil.iter_modules(room.__path__)),
    *(capability_table, cells, compatibility, costs, expect, object_table),
]  # fmt: skip
_VALUES = [
    value
    for module in _MODULES
    for value in vars(module).values()
    if inspect.isclass(value) and value.__module__ == module.__name__
    if not issubclass(value, enum.Enum)
]


@pytest.mark.parametrize("value", _VALUES, ids=lambda value: value.__name__)
def test_a_value_is_frozen_and_has_only_its_fields(value: type) -> None:
    if issubclass(value, msgspec.Struct):
        assert value.__struct_config__.frozen
        return
    parameters = getattr(value, "__dataclass_params__", None)
    assert parameters is not None
    assert parameters.frozen
    assert "__slots__" in vars(value)


def test_there_are_values_to_look_at() -> None:
    assert {"Cell", "Decision", "Matrix", "Change", "Situation", "Need", "Table"} <= {
        value.__name__ for value in _VALUES
    }
