"""What must hold of scenarios before anything boots: their programs, maps, members and frames exist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kernel_matrix.shared.bpf import bpf_elf, object_types
from kernel_matrix.shared.bpf.object_types import ObjectTypes, replaced
from kernel_matrix.shared.bpf.scenario import INTERFACE, PID, Check, Scenario, Step
from kernel_matrix.shared.bpf.values import ValueMismatch
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project

#: the numbers that only a run knows, as any number
_NAMES = {PID: 0, INTERFACE: 0}


def check(project: Project) -> None:
    """Refuse the first scenario that cannot be played; raises ManifestError."""
    for scenario in project.object_table.scenarios:
        where = f"{project.table}: scenario {scenario.name}"
        paths = [path for path in project.object_files if project.object_table.names(scenario.object, path)]
        if project.objects and not paths:
            raise ManifestError(f"{where}: object {scenario.object}: no object is called so")
        for line in _wrong(scenario, [project.root / path for path in paths]):
            raise ManifestError(f"{where}: {line}")


def _wrong_frames(frames: list[str]) -> Iterator[str]:
    if frames:
        # scapy, for projects that send frames alone
        from kernel_matrix.guest.pytest.items import notation

        yield from filter(None, map(notation.frame_error, frames))


def _wrong(scenario: Scenario, paths: list[Path]) -> Iterator[str]:
    yield from _wrong_frames([step.what for step in scenario.do if step.act == "send"])
    for path in paths:
        programs = bpf_elf.read(path).programs
        for name in scenario.programs:
            if name not in programs:
                yield f"{path.name} has no program {name} (it has: {', '.join(programs) or 'none'})"
        try:
            types = object_types.read(path)
            for step in scenario.do:
                if step.act == "put":
                    _check_put(step, types)
            for own in scenario.then:
                _check(own, types)
        except ValueError as error:
            yield f"{path.name}: {error}"


def _check_put(step: Step, types: ObjectTypes) -> None:
    keyed = types.keyed(step.what)
    if keyed.per_cpu:
        raise ValueMismatch(f"map {step.what} has a value for each processor: it is only read")
    types.values.write(keyed.key, replaced(step.key, _NAMES), f"key of {step.what}")
    types.values.write(keyed.value, replaced(step.value, _NAMES), f"value of {step.what}")


def _check(own: Check, types: ObjectTypes) -> None:
    """Compare a check with the object's types; raises ValueMismatch, BtfError."""
    wanted, read = replaced(own.wanted, _NAMES), types.values
    if own.of == "events":
        types.buffer(own.name)
        record = types.record(own.struct, own.name)
        where = replaced(own.where, _NAMES)
        if not record and (where or own.rule == "values"):
            raise ValueMismatch(f"events {own.name}: name their struct")
        for declared in [where, *(wanted if own.rule == "values" else ())]:
            if record:
                read.wanted(record, declared, f"events {own.name}")
        return
    if own.of == "variable":
        read.wanted(types.variable(own.name).type, wanted, own.name, numbers=own.rule == "added")
        return
    keyed = types.keyed(own.name)
    for key in wanted if own.rule == "keys" else [replaced(own.key, _NAMES)]:
        read.write(keyed.key, key, f"key of {own.name}")
    if own.cpu is not None and not keyed.per_cpu:
        raise ValueMismatch(f"map {own.name} is not per-CPU")
    if own.rule in {"value", "added"}:
        numbers = own.rule == "added" or (keyed.per_cpu and own.cpu is None)
        read.wanted(keyed.value, wanted, str(own), numbers=numbers)
