"""Every refusal in the capability table: what kernel_matrix.diagnose says to do about it is a cell that is allowed.

The table is measured, the rules are written: this holds one to the other, without a guest.
"""

from __future__ import annotations

import errno
import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pytest

from kernel_matrix.diagnose import Cause, Diagnosis, Remedy, Situation, diagnose
from kernel_matrix.diagnose.situation import CAPABILITIES
from kernel_matrix.shared.outcomes import capabilities, capability_table
from kernel_matrix.shared.outcomes.capabilities import OK, Caps
from kernel_matrix.shared.outcomes.capability_table import USERS, Context
from tests.projects import HERE

_TABLES = capability_table.read(HERE.capabilities.read_text())
_BPF, _PERF = "unprivileged_bpf_disabled", "perf_event_paranoid"
#: shipped object -> the type of its program, and where a cell that takes a file is measured with file capabilities, too
_SHIPPED = {"xdp_packet_counter": "xdp", "kprobe_execve": "kprobe", "tracepoint_network": "tracepoint"}
_TWINS = {
    **{f"kprobe {both}attach tracefs": f"kprobe_execve {both}attach tracefs" for both in ("", "load+")},
    **{f"tracepoint {both}attach tracefs": f"tracepoint_network {both}attach tracefs" for both in ("", "load+")},
    "array pin private": "xdp_packet_counter pin",
}
#: what file capabilities alone open, with which these were not tried: suites/permissions does
_UNMEASURED = ("array open pinned private", "array open pinned public")
#: row -> the libbpf name of a program's type, where the row is not called so
_KINDS = {
    **_SHIPPED,
    "fentry": "tracing",
    "bounded_loop": "socket_filter",
    "bpf_call": "socket_filter",
    "uprobe": "kprobe",
    "kprobe_multi": "kprobe",
}
#: row -> how kernel_matrix.guest.bpf.diagnosis.machine calls the hook
_HOOKS = {
    "xdp": "XDP",
    "kprobe": "kprobe",
    "uprobe": "uprobe",
    "kprobe_multi": "kprobe.multi",
    "tracepoint": "tracepoint",
    "perf_event": "perf_event",
}
_UID = {"root": 0, "nobody": 65534, "userns": 0, "token": 0}
_FOUR = frozenset(capabilities.CAPABILITIES)


@dataclass(frozen=True)
class State:
    """One cell: who tries with which set, under which setting of sysctls."""

    kernel: str
    row: str
    who: str
    caps: Caps
    #: ``one=0&other=-1``; empty: the distribution's defaults
    setting: str = ""

    @property
    def sysctls(self) -> dict[str, int]:
        return {**_TABLES[self.kernel].defaults, **_values(self.setting)}

    def __str__(self) -> str:
        return f"{self.kernel}, {self.who}, {self.setting or 'defaults'}, {capabilities.show(self.caps)}"


def _values(setting: str) -> dict[str, int]:
    pairs = [part.partition("=") for part in setting.split("&") if part]
    return {name: int(value) for name, _, value in pairs}


@functools.cache
def column(kernel: str, row: str, who: str, setting: str) -> Mapping[Caps, str] | None:
    """Read the cells of all sets by the table's own rule; None where nothing was tried."""
    table, context = _TABLES[kernel], Context(who, setting)
    try:
        return {caps: table.read(row, context, caps) for caps in capabilities.subsets()}
    except KeyError:
        return None


@functools.cache
def least(kernel: str, row: str, who: str, setting: str) -> tuple[Caps, ...]:
    """Return the minimal sets, file capabilities included, that were measured for a row or one like it."""
    try:
        return tuple(_TABLES[kernel].minimal_sets(_TWINS.get(row, row), Context(who, setting)))
    except KeyError:
        return ()


def answer(at: State) -> str | None:
    """Return what came of a cell; None where the table does not say."""
    if any(caps <= at.caps for caps in least(at.kernel, at.row, at.who, at.setting)):
        return OK
    answers = column(at.kernel, at.row, at.who, at.setting)
    return None if answers is None else answers[at.caps & _FOUR]


def situation(at: State, refused: str) -> Situation:
    """Say what a real machine would know of this cell."""
    subject, _, stage = at.row.partition(" ")
    loaded = stage.startswith("load+attach") and answer(replace(at, row=f"{subject} load")) == OK
    effective = sum(1 << CAPABILITIES[f"CAP_{name}"] for name in at.caps)
    known = _but_caps(at.kernel, at.row, at.who, at.setting, loaded=loaded)
    return replace(known, errno=getattr(errno, refused), effective=effective)


@functools.cache
def _but_caps(kernel: str, row: str, who: str, setting: str, *, loaded: bool) -> Situation:
    """Say what is known beside the errno and the set; ``loaded``: of two stages the first has worked."""
    old, at = kernel == "5.10", State(kernel, row, who, frozenset(), setting)
    base = Situation(
        stage=row,
        uid=_UID[who],
        in_user_namespace=who in {"userns", "token"},
        token=who == "token",
        closes_all=old,
        charges_memlock=old and row.endswith(("load", "map_create")),
        memlock=65536 if old else None,
        sysctls={f"kernel.{name}": value for name, value in at.sysctls.items()},
        mounts={"/sys/kernel/tracing": "tracefs", "/sys/fs/bpf": "bpf"},
        lsms=("bpf",),
    )
    subject, _, stage = row.partition(" ")
    step, _, path = stage.partition(" ")
    if row in _COMMANDS:
        step, target = _COMMANDS[row]
        return replace(base, stage=step, target=target)
    if step in {"pin", "open", "read"}:
        return _of_file(base, at)
    if step in {"load", "attach", "load+attach"}:
        now = "attach" if loaded or step == "attach" else "load"
        hook = "tcx" if path == "tcx" else _HOOKS.get(_SHIPPED.get(subject, subject), "")
        return replace(base, stage=now, kind=_KINDS.get(subject, subject), path=path, hook=hook)
    return replace(base, stage=step, target="array" if subject in _SHIPPED else subject)


#: commands of bpf() that are of no program or map: stage, and what `StepError.what` calls them
_COMMANDS = {
    "bpf list programs": ("query", "prog ids"),
    "bpf list maps": ("query", "map ids"),
    "bpf open program by id": ("open", "prog 1"),
    "bpf open map by id": ("open", "map 1"),
    "bpf info of program": ("query", "info"),
    "bpf query cgroup": ("query", "cgroup_inet_ingress programs"),
    "bpf test run": ("test_run", "program"),
    "bpf load BTF": ("load", "BTF"),
    "bpf token create": ("token", "BPF token"),
}


def _of_file(base: Situation, at: State) -> Situation:
    subject, _, stage = at.row.partition(" ")
    foreign = at.who != "root"
    if stage == "read id":
        return replace(base, stage="read", target="/sys/kernel/tracing/events/x/id", denied=foreign)
    if subject == "perf_event_array":
        # opening is of no command of bpf(), putting the event's fd into the map is
        return replace(base, stage="attach", hook="perf_event", path="perf" if stage == "read open" else "map")
    if stage.startswith("open"):
        return replace(base, stage="open", target="/sys/fs/bpf/map", denied=foreign)
    if stage.startswith("pin"):
        return replace(base, stage="pin", target="/sys/fs/bpf/step", denied=foreign and stage != "pin public")
    return replace(base, stage="lookup" if subject in _SHIPPED else "read")


def applied(remedy: Remedy, at: State) -> State:
    """Do what a remedy says."""
    caps = frozenset(name.removeprefix("CAP_") for name in remedy.capabilities)
    changed = {name.removeprefix("kernel."): value for name, value in remedy.sysctls.items()}
    values = {**_values(at.setting), **changed}
    setting = "&".join(f"{name}={values[name]}" for name in (_BPF, _PERF) if name in values)
    return replace(
        at,
        who="nobody" if remedy.outside else at.who,
        caps=caps if remedy.outside else at.caps | caps,
        setting=setting,
    )


def refusals(row: str) -> Iterator[tuple[State, str]]:
    """Yield every cell of a row that is refused, and with what; kernels that answer alike in all once."""
    seen = set()
    for kernel, table in _TABLES.items():
        subject, _, path = row.partition(" load+attach ")
        used = [row, _TWINS.get(row, row), f"{subject} load", f"{subject} attach {path}"]
        alike = json.dumps([[repr(lines.get(name)) for name in used] for lines in (table.cells, table.minimum)])
        if alike in seen:
            continue
        seen.add(alike)
        for who, setting in itertools.product(USERS, ("", *table.settings)):
            for caps, text in (column(kernel, row, who, setting) or {}).items():
                if text != OK:
                    yield State(kernel, row, who, caps, setting), text


@functools.cache
def _allowed(kernel: str, row: str, who: str) -> tuple[Caps, ...]:
    """Return the minimal sets that do under any setting that was measured."""
    sets: list[Caps] = []
    for setting in ("", *_TABLES[kernel].settings):
        sets += least(kernel, row, who, setting)
        sets += [caps for caps, text in (column(kernel, row, who, setting) or {}).items() if text == OK]
    return capabilities.minimal(sets)


def curable(at: State) -> bool:
    """Say whether any set that contains this one would do, as things are set or otherwise."""
    return bool(_allowed(at.kernel, at.row, at.who))


def cures(remedy: Remedy, at: State) -> bool:
    """Say whether a cell is allowed once a remedy is applied: in two goes where the verifier has the last word.

    What it answers is EACCES, EINVAL, E2BIG or EFAULT, and EPERM to whoever comes to it by the sysctl, without CAP_BPF.
    """
    then = applied(remedy, at)
    if answer(then) == OK:
        return True
    more = replace(remedy, capabilities=(*remedy.capabilities, *remedy.verifier))
    verifiers = {"EACCES", "EINVAL", "E2BIG", "EFAULT", *(["EPERM"] if remedy.sysctls else [])}
    return bool(remedy.verifier) and answer(then) in verifiers and answer(applied(more, at)) == OK


def _less(remedy: Remedy) -> Iterator[Remedy]:
    """Yield a remedy without one of its parts each."""
    for name in remedy.capabilities:
        yield replace(remedy, capabilities=tuple(other for other in remedy.capabilities if other != name))
    for name in remedy.sysctls:
        yield replace(remedy, sysctls={other: value for other, value in remedy.sysctls.items() if other != name})


def faults(at: State, diagnosis: Diagnosis) -> Iterator[str]:
    """Yield what is wrong with a diagnosis of a cell that something cures."""
    if diagnosis.cause is Cause.UNKNOWN:
        yield "not known"
        return
    # what is no capability and no sysctl is not to be found in the table; the first remedy always is
    for remedy in [diagnosis.cure, *([diagnosis.other] if diagnosis.other and not diagnosis.other.advice else [])]:
        if remedy.outside:
            yield f"'{remedy}' goes elsewhere, where something does here"
        elif not cures(remedy, at):
            yield f"'{remedy}' does not cure: {answer(applied(remedy, at))}"
        elif any(cures(less, at) for less in _less(remedy)):
            yield f"'{remedy}' is more than it takes"
    if diagnosis.cure.sysctls and any(
        answer(replace(at, caps=at.caps | more)) == OK for more in capabilities.subsets()
    ):
        yield f"'{diagnosis.cure}' sets a sysctl where a capability does"


_ROWS = list(dict.fromkeys(row for table in _TABLES.values() for row in table.cells))


@pytest.mark.parametrize("row", _ROWS)
def test_a_remedy_applied_is_a_cell_that_is_allowed(row: str) -> None:
    """And takes no more than it needs, and no sysctl where a capability does."""
    wrong = [
        f"{at}: {text}: {fault}"
        for at, text in refusals(row)
        if curable(at)
        for fault in faults(at, diagnose(situation(at, text)))
    ]
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:20])


def _helps(at: State, text: str, cure: Remedy) -> bool:
    """Say whether what a diagnosis gives comes at least to another refusal, which nothing cures."""
    if not cure.capabilities or at.row in _UNMEASURED:
        return True
    then = applied(cure, at)
    return cures(cure, at) or (answer(then) != text and not curable(then))


@pytest.mark.parametrize("row", _ROWS)
def test_what_no_set_cures_is_explained_too(row: str) -> None:
    """What is said to help outside of a user namespace helps there."""
    wrong = [
        f"{at}: {text}: {diagnosis}"
        for at, text in refusals(row)
        if not curable(at)
        for diagnosis in [diagnose(situation(at, text))]
        if diagnosis.cause is Cause.UNKNOWN or not _helps(at, text, diagnosis.cure)
    ]
    assert not wrong, f"{len(wrong)}:\n" + "\n".join(wrong[:20])


def test_the_table_is_asked_about_in_every_state() -> None:
    """Nothing above is true of an empty table."""
    states = [at for row in _ROWS for at, _ in refusals(row)]
    assert len(states) > 6000
    assert sum(curable(at) for at in states) > 3000
