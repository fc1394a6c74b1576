"""The tables ``scenario``: what is done while an object is attached, and what must hold then -> frozen data."""

from __future__ import annotations

import errno
import ipaddress
import re
import shlex
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from kernel_matrix.shared.bpf import scenario
from kernel_matrix.shared.bpf.scenario import Check, Step
from kernel_matrix.shared.errors import ManifestError

_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Number = Annotated[int, msgspec.Meta(ge=0)]
#: what a node id can have as a name
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_ADDRESS = re.compile(r"\[?(?P<host>[^\]]+?)\]?:(?P<port>\d+)")
#: the keys of a step that say what is done -> the further keys that it takes
_ACTS = {
    "put": {"key", "value"},
    "send": {"times", "cpu"},
    "run": {"times", "status"},
    "connect": {"times", "protocol", "errno"},
}
#: the keys of a check that say what it is about -> its rules, of which it has one, and the further keys that it takes
_CHECKS = {
    "map": ({"value", "added", "absent", "keys"}, {"key", "cpu"}),
    "variable": ({"value", "added"}, set[str]()),
    "events": ({"values", "count"}, {"struct", "where"}),
}
_Unset = msgspec.UnsetType
_UNSET = msgspec.UNSET


class _Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    put: _Name | _Unset = _UNSET
    key: Any = _UNSET
    value: Any = _UNSET
    send: _Name | _Unset = _UNSET
    run: _Name | _Unset = _UNSET
    connect: _Name | _Unset = _UNSET
    times: _Count | _Unset = _UNSET
    cpu: _Number | _Unset = _UNSET
    status: int | _Unset = _UNSET
    protocol: Literal["tcp", "udp"] | _Unset = _UNSET
    errno: _Name | _Unset = _UNSET


class _Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    map: _Name | _Unset = _UNSET
    variable: _Name | _Unset = _UNSET
    events: _Name | _Unset = _UNSET
    key: Any = _UNSET
    cpu: _Number | _Unset = _UNSET
    value: Any = _UNSET
    added: Any = _UNSET
    absent: Literal[True] | _Unset = _UNSET
    keys: list[Any] | _Unset = _UNSET
    struct: _Name | _Unset = _UNSET
    where: dict[str, Any] | _Unset = _UNSET
    values: list[dict[str, Any]] | _Unset = _UNSET
    count: _Number | _Unset = _UNSET


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[[tool.kernel-matrix.scenario]]: what is done while an object is attached, and what must hold then."""

    name: _Name
    object: _Name
    do: tuple[_Step, ...]
    then: tuple[_Check, ...] = ()
    programs: tuple[_Name, ...] = ()
    xdp: Literal["native", "generic"] = "native"
    within: Annotated[float, msgspec.Meta(gt=0)] = 0.05


def table(scenarios: tuple[Scenario, ...], where: str) -> tuple[scenario.Scenario, ...]:
    """Return the scenarios; raises ManifestError for one that can do nothing, or cannot fail."""
    read = tuple(_scenario(entry, f"{where}: scenario {entry.name}") for entry in scenarios)
    if len({(own.object, own.name) for own in read}) < len(read):
        raise ManifestError(f"{where}: scenario: two scenarios of an object have the same name")
    return read


def _scenario(entry: Scenario, where: str) -> scenario.Scenario:
    if not _NAME.fullmatch(entry.name):
        raise ManifestError(f"{where}: a name has letters, digits, and . _ - only")
    if not entry.do:
        raise ManifestError(f"{where}: do: nothing is done")
    do = tuple(_step(step, f"{where}: do") for step in entry.do)
    if not entry.then and all(step.act in {"put", "send"} for step in do):
        raise ManifestError(f"{where}: then: nothing must hold, so it cannot fail")
    then = tuple(_check(check, f"{where}: then") for check in entry.then)
    return scenario.Scenario(entry.name, entry.object, do, then, entry.programs, entry.xdp, entry.within)


def _written(entry: msgspec.Struct) -> dict[str, Any]:
    """Return the keys that are in the table, with their values."""
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not _UNSET}


def _step(entry: _Step, where: str) -> Step:
    fields = _written(entry)
    act = _only(fields, _ACTS, where)
    what: str = fields.pop(act)
    where = f"{where}: {act} {what}"
    _refuse_others(fields, _ACTS[act], where)
    if act == "put" and len(fields) < len(_ACTS[act]):
        raise ManifestError(f"{where}: put needs a key and a value")
    if act == "run":
        try:
            words = shlex.split(what)
        except ValueError as error:
            raise ManifestError(f"{where}: {error}") from error
        if not words:
            raise ManifestError(f"{where}: no command")
    if act == "connect":
        _check_address(what, where)
    if not hasattr(errno, fields.get("errno", "EPERM")):
        raise ManifestError(f"{where}: no errno {fields['errno']}")
    return Step(act, what, **fields)


def _check_address(text: str, where: str) -> None:
    """Refuse what is no address and port; raises ManifestError."""
    match = _ADDRESS.fullmatch(text)
    try:
        if match is not None:
            ipaddress.ip_address(match["host"])
            if 0 < int(match["port"]) < 1 << 16:
                return
    except ValueError:
        match = None
    raise ManifestError(f"{where}: an address is 127.0.0.1:PORT or [::1]:PORT")


def _check(entry: _Check, where: str) -> Check:
    fields = _written(entry)
    of = _only(fields, _CHECKS, where)
    rules, others = _CHECKS[of]
    name: str = fields.pop(of)
    where = f"{where}: {of} {name}"
    _refuse_others(fields, rules | others, where)
    rule = _only(fields, rules, where)
    wanted = fields.pop(rule)
    if of == "map" and (rule == "keys") == ("key" in fields):
        raise ManifestError(f"{where}: {rule} {'takes no' if rule == 'keys' else 'needs a'} key")
    if rule in {"absent", "keys"} and "cpu" in fields:
        raise ManifestError(f"{where}: {rule} takes no cpu")
    return Check(of, name, rule, wanted, **fields)


def _only(fields: dict[str, Any], names: Iterable[str], where: str) -> str:
    """Return the one of these keys that is there; raises ManifestError."""
    named = [name for name in names if name in fields]
    if len(named) != 1:
        raise ManifestError(f"{where}: one of {', '.join(sorted(names))}")
    return named[0]


def _refuse_others(fields: dict[str, Any], known: set[str], where: str) -> None:
    for name in fields:
        if name not in known:
            raise ManifestError(f"{where}: {name} does not belong here")
