"""Play a scenario: attach, note what is there, do the steps, and say what does not hold then."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.scenarios import stimulus
from kernel_matrix.guest.bpf.foreign.scenarios.attached import Attached, attached
from kernel_matrix.guest.bpf.foreign.scenarios.reading import Events
from kernel_matrix.guest.bpf.steps import XdpFlags
from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.shared.bpf import values
from kernel_matrix.shared.bpf.object_types import replaced
from kernel_matrix.shared.bpf.scenario import INTERFACE, PID, Check, Scenario, shown

#: what a program was not run for, its maps and events cannot have
_SKIPPED = "the kernel has not run {} (recursion_misses), because it was preempted, or another ran, on that processor"


def play(scenario: Scenario, foreign: Foreign, pins: Path, place: Place) -> list[str]:
    """Return a line for each check that does not hold, with the expected and the actual value.

    What holds is read once more when the programs are detached: then nothing changes any more. Raises StepError,
    Undeclared, StimulusError, FrameError, TimeoutError, ValueMismatch.
    """
    xdp = XdpFlags[scenario.xdp.upper()]
    with attached(foreign, pins, place, scenario.programs, xdp) as obj:
        states = [State(check, obj) for check in scenario.then]
        names = {PID: 0, INTERFACE: place.interface}
        for step in scenario.do:
            if step.act == "put":
                obj.map(step.what)[replaced(step.key, names)] = replaced(step.value, names)
            else:
                names[PID] = stimulus.do(step, place) or names[PID]

        def wrong() -> list[str]:
            return [line for state in states if (line := state.wrong(names))]

        # the lines below say what does not hold
        with suppress(TimeoutError):
            wait_until(lambda: not wrong(), scenario.name, scenario.within)
        obj.detach()
        lines = wrong()
        if lines and (skipped := obj.skipped()):
            lines.append(_SKIPPED.format(", ".join(f"{name} {count} times" for name, count in skipped.items())))
        return lines


class State:
    """A check, and what was there before the steps."""

    def __init__(self, check: Check, obj: Attached) -> None:
        self._check = check
        self._obj = obj
        self._events: Events | None = obj.events(check.name, check.struct) if check.of == "events" else None
        self._before = self._entry({PID: 0, INTERFACE: obj.place.interface}) if check.rule == "added" else None

    def wrong(self, names: Mapping[str, int]) -> str:
        """Return the line that says what is expected and what is; empty: it holds."""
        check = self._check
        if self._events is not None:
            return self._wrong_events(self._events, names)
        if check.rule == "keys":
            return self._wrong_keys(names)
        value = self._entry(names)
        if check.rule == "absent":
            return "" if value is None else f"{check}: expected none, is {shown(value)}"
        numbers = check.rule == "added" or self._summed
        wanted = self._obj.types.values.wanted(self._type, replaced(check.wanted, names), str(check), numbers=numbers)
        if check.rule == "added":
            grown = None if value is None else values.difference(value, self._before)
            return "" if values.holds(wanted, grown) else f"{check}: expected {_more(wanted)}, is {_more(grown)}"
        if values.holds(wanted, value):
            return ""
        return f"{check}: expected {shown(wanted)}, is {self._seen(value, names)}"

    @property
    def _summed(self) -> bool:
        """Whether the value is the sum of all processors'."""
        check = self._check
        return check.of == "map" and check.cpu is None and self._obj.types.keyed(check.name).per_cpu

    @property
    def _type(self) -> int:
        types = self._obj.types
        return types.keyed(self._check.name).value if self._check.of == "map" else types.variable(self._check.name).type

    def _entry(self, names: Mapping[str, int]) -> Any:  # noqa: ANN401 - a value of C
        """Return the value that the check is about; None where the map has none."""
        check = self._check
        if check.of == "variable":
            return self._obj.variable(check.name)
        view, key = self._obj.map(check.name), replaced(check.key, names)
        try:
            return view[key] if check.cpu is None else view.each_cpu(key)[check.cpu]
        except KeyError:
            return None

    def _seen(self, value: Any, names: Mapping[str, int]) -> str:  # noqa: ANN401 - a value of C
        """Return what is there instead: of a sum also its parts, of an entry that is missing the keys."""
        if value is None:
            return f"absent (the keys are {_listed(self._obj.map(self._check.name))})"
        if not self._summed:
            return shown(value)
        each = self._obj.map(self._check.name).each_cpu(replaced(self._check.key, names))
        return f"{shown(value)} (by processor: {', '.join(map(shown, each))})"

    def _wrong_keys(self, names: Mapping[str, int]) -> str:
        check, types = self._check, self._obj.types
        key = types.keyed(check.name).key
        wanted = [types.values.wanted(key, own, check.name) for own in replaced(check.wanted, names)]
        present = list(self._obj.map(check.name))
        if len(wanted) == len(present) and _paired(wanted, present):
            return ""
        return f"keys of {check.name}: expected {shown(wanted)}, is {_listed(present)}"

    def _wrong_events(self, events: Events, names: Mapping[str, int]) -> str:
        check = self._check
        where = replaced(check.where, names)
        present = events.all(**where)
        chosen = f"{check.name} where {shown(where)}" if where else check.name
        if check.rule == "count":
            count = f"{chosen}: expected {check.wanted} events, is {len(present)}"
            return "" if len(present) == check.wanted else f"{count}: {_listed(present)}"
        record = self._obj.types.record(check.struct, check.name)
        wanted = [
            self._obj.types.values.wanted(record, own, f"{check.name}[{at}]")
            for at, own in enumerate(replaced(check.wanted, names))
        ]
        right = all(map(values.holds, wanted, present)) if events.ordered else _paired(wanted, present)
        if len(wanted) == len(present) and right:
            return ""
        return f"{chosen}: expected {shown(wanted)}, is {_listed(present)}"


def _paired(wanted: list[Any], present: list[Any]) -> bool:
    """Whether each wanted value has a present one of its own."""
    if not wanted:
        return True
    rest = wanted[1:]
    return any(
        values.holds(wanted[0], value) and _paired(rest, present[:at] + present[at + 1 :])
        for at, value in enumerate(present)
    )


#: most values that a line lists
_SHOWN = 8


def _listed(present: Any) -> str:  # noqa: ANN401 - values of C
    """Return the first values, and how many more there are."""
    own = list(present)
    more = f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else ""
    return f"{shown(own[:_SHOWN])}{more}"


def _more(value: Any) -> str:  # noqa: ANN401 - a value of C
    return "absent" if value is None else f"{shown(value)} more"
