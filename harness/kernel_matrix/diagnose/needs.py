"""What the kernel asks of whoever makes a step: capabilities, each with the sysctl that stands for it. Pure.

This is the kernel's own order of questions, from its source; the capability table, which is measured, says whether
it is right.
"""

from __future__ import annotations

import enum
import errno
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from kernel_matrix.diagnose.remedy import Remedy
from kernel_matrix.diagnose.situation import UNPRIVILEGED_TYPES, Situation, needed

BPF_SYSCTL, PERF_SYSCTL = "kernel.unprivileged_bpf_disabled", "kernel.perf_event_paranoid"
#: what a kernel has that does not show its sysctl: upstream's defaults
_DEFAULTS = {BPF_SYSCTL: 2, PERF_SYSCTL: 2}
#: bpf_capable() and perfmon_capable() (linux/capability.h)
_BPF, _PERFMON = ("CAP_BPF", "CAP_SYS_ADMIN"), ("CAP_PERFMON", "CAP_SYS_ADMIN")


class Scope(enum.Enum):
    """Whose capabilities count."""

    #: those of the initial user namespace: capable()
    INITIAL = enum.auto()
    #: with a token also those of its user namespace: bpf_token_capable()
    TOKEN = enum.auto()
    #: those of the asker's own user namespace: ns_capable()
    OWN = enum.auto()


@dataclass(frozen=True, slots=True)
class Need:
    """A question of the kernel: whoever has one of these capabilities passes, and everybody at a low sysctl."""

    #: any of them, the least first: it is the one to give
    capabilities: tuple[str, ...]
    #: what it answers to who does not pass
    errnos: tuple[int, ...] = (errno.EPERM,)
    #: asked only where this sysctl is higher than `low`
    sysctl: str = ""
    low: int = 0
    scope: Scope = Scope.INITIAL

    def counts(self, at: Situation) -> bool:
        """Say whether the capabilities that the asker has, or could be given where it is, count."""
        return not at.in_user_namespace or self.scope is Scope.OWN or (self.scope is Scope.TOKEN and at.token)

    def met(self, at: Situation) -> bool:
        """Say whether the asker passes."""
        if self.sysctl and at.sysctls.get(self.sysctl, _DEFAULTS[self.sysctl]) <= self.low:
            return True
        return self.counts(at) and at.has(*self.capabilities)

    def settable(self, at: Situation) -> bool:
        """Say whether the sysctl is there and can be lowered: bpf_unpriv_handler() never lets go of a 1."""
        return self.sysctl in at.sysctls and (self.sysctl, at.sysctls[self.sysctl]) != (BPF_SYSCTL, 1)


#: what the verifier takes of nobody else: env->bpf_capable and env->allow_ptr_leaks
BPF, PERFMON = Need(_BPF, scope=Scope.TOKEN), Need(_PERFMON, scope=Scope.TOKEN)


def unmet(at: Situation) -> list[Need]:
    """Return what the asker lacks for this step, in the order in which the kernel asks; empty: nothing is known."""
    return [need for need in _OF_STAGE.get(at.stage, _any_command)(at) if not need.met(at)]


def remedy(needs: Sequence[Need], at: Situation) -> Remedy:
    """Return what meets these needs: capabilities where any count, a sysctl where none does, no more than it takes."""
    sysctls = [need for need in needs if not need.counts(at) and need.settable(at)]
    rest = [need for need in needs if need not in sysctls]
    if any(not need.counts(at) for need in rest):
        # what it has inside is of no use there; root it is not, and what it loaded with a token it has to load itself
        stage = "load" if at.token and at.stage == "attach" else at.stage
        there = replace(at, stage=stage, in_user_namespace=False, token=False, effective=0, uid=at.uid or 1)
        return Remedy(capabilities=_fewest(unmet(there)), outside=True)
    return Remedy(capabilities=_fewest(rest), sysctls=_lowest(sysctls))


def alternative(needs: Sequence[Need], at: Situation) -> Remedy | None:
    """Return what meets these needs by sysctls wherever one does; None where that is no other remedy, or none."""
    rest = [need for need in needs if not need.settable(at)]
    if any(not need.counts(at) for need in rest):
        return None
    capabilities = _fewest(rest)
    # what is given for one need may meet another
    spare = [need for need in needs if need.counts(at) and set(need.capabilities) & set(capabilities)]
    sysctls = [need for need in needs if need.settable(at) and need not in spare]
    other = Remedy(capabilities=capabilities, sysctls=_lowest(sysctls))
    return other if sysctls and other != remedy(needs, at) else None


def _fewest(needs: Sequence[Need]) -> tuple[str, ...]:
    """Return one capability for each need, first for those that leave no choice: one may meet several."""
    found: list[str] = []
    for need in sorted(needs, key=lambda need: len(need.capabilities)):
        if not set(need.capabilities) & set(found):
            found.append(need.capabilities[0])
    return tuple(sorted(found, key=[name for need in needs for name in need.capabilities].index))


def _lowest(needs: Sequence[Need]) -> dict[str, int]:
    return {name: min(need.low for need in needs if need.sysctl == name) for name in {need.sysctl for need in needs}}


# -- bpf() as a whole


def _any_command(at: Situation) -> Iterator[Need]:
    """__sys_bpf() until c8644cd0efe7 (5.19): EPERM for every command; since then for creating and loading only."""
    # what charges memory to RLIMIT_MEMLOCK is older than 5.11
    if at.closes_all or at.charges_memlock:
        yield Need(_BPF, sysctl=BPF_SYSCTL)


# -- maps

#: map types that their allocation, and since 6.4 map_create(), leaves to everybody
_UNPRIVILEGED_MAPS = frozenset({
    "array", "percpu_array", "prog_array", "perf_event_array", "cgroup_array", "array_of_maps", "hash",
    "percpu_hash", "hash_of_maps", "ringbuf", "user_ringbuf", "cgroup_storage", "percpu_cgroup_storage",
})  # fmt: skip
#: map types that take CAP_NET_ADMIN, for which CAP_SYS_ADMIN stands since ed1ad5a7415d (6.9) only
_NET_ADMIN_MAPS = frozenset({"devmap", "devmap_hash", "xskmap", "sockmap", "sockhash"})


def _map_create(at: Situation) -> Iterator[Need]:
    """map_create(), and before 6.4 the types' own alloc_check()."""
    if at.target in _UNPRIVILEGED_MAPS | _NET_ADMIN_MAPS:
        yield Need(_BPF, sysctl=BPF_SYSCTL, scope=Scope.TOKEN)
    else:
        yield Need(_BPF, scope=Scope.TOKEN)
    # of an unknown type, what is refused to whoever has CAP_BPF and charged to no limit is one of these
    if at.target in _NET_ADMIN_MAPS or (not at.target and BPF.met(at) and not at.charges_memlock):
        yield Need(("CAP_NET_ADMIN",), scope=Scope.TOKEN)


# -- programs


def _load(at: Situation) -> Iterator[Need]:
    """bpf_prog_load(); and what attaching takes, where it is known that the same process will attach it so."""
    for name in needed(at.kind):
        free = name == "CAP_BPF" and at.kind in UNPRIVILEGED_TYPES
        yield Need((name, "CAP_SYS_ADMIN"), sysctl=BPF_SYSCTL if free else "", scope=Scope.TOKEN)
    if at.path:
        yield from _attach(at)


def _attach(at: Situation) -> Iterator[Need]:
    if at.hook in PERF_HOOKS:
        yield from _perf(at)
    if at.path == "netlink" or (at.hook == "XDP" and not at.path):
        yield _NETLINK
        return
    if at.path not in {"perf", "tracefs", "setsockopt"}:
        yield from _any_command(at)
    if at.path == "clsact":
        # libbpf asks for the program's name in between
        yield _NETLINK
    if at.kind == "cgroup_skb":
        # bpf_prog_attach_check_attach_type(): of a cgroup's types the only one that can be loaded without it.
        # bpf_prog_attach() makes EINVAL of every refusal of that function, link_create() hands it on.
        errnos = {"prog_attach": (errno.EINVAL,), "link": (errno.EPERM,)}.get(at.path, (errno.EINVAL, errno.EPERM))
        yield Need(("CAP_NET_ADMIN",), errnos, scope=Scope.TOKEN)


#: rtnetlink_rcv_msg(): netlink_net_capable(), for which CAP_SYS_ADMIN does not stand
_NETLINK = Need(("CAP_NET_ADMIN",), scope=Scope.OWN)

#: hooks that are perf events
PERF_HOOKS = frozenset({"kprobe", "uprobe", "tracepoint", "perf_event"})


def _perf(at: Situation) -> Iterator[Need]:
    """Open the file that names the event, then perf_event_open()."""
    denied = (errno.EACCES,)
    foreign = at.uid != 0 or at.in_user_namespace
    if foreign and at.hook == "tracepoint" and at.path in {"", "tracefs"}:
        yield Need(("CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"), denied)
    if foreign and at.hook in {"kprobe", "uprobe"} and at.path == "tracefs":
        yield Need(("CAP_DAC_OVERRIDE",), denied)
    if at.sysctls.get(PERF_SYSCTL, 0) > _ANY_PERF:
        yield Need(("CAP_SYS_ADMIN",), denied, PERF_SYSCTL, _ANY_PERF)
    if at.hook == "uprobe" and at.path != "tracefs":
        # perf_uprobe_event_init()
        yield Need(("CAP_SYS_ADMIN",), denied)
    elif at.hook == "kprobe" and at.path != "tracefs":
        # perf_kprobe_event_init()
        yield Need(_PERFMON, denied)
    else:
        # perf_allow_cpu()
        yield Need(_PERFMON, denied, PERF_SYSCTL)


#: Debian's patch of perf_event_open(): above it CAP_SYS_ADMIN and nothing else
_ANY_PERF = 2


# -- files and ids


def _pin(at: Situation) -> Iterator[Need]:
    """bpf_obj_do_pin(): a file is made."""
    yield from _any_command(at)
    if at.denied or at.errno == errno.EACCES:
        yield Need(("CAP_DAC_OVERRIDE",), (errno.EACCES,))


def _open(at: Situation) -> Iterator[Need]:
    """bpf_*_get_fd_by_id(): capable(CAP_SYS_ADMIN); bpf_obj_do_get(): a file is read and written."""
    yield from _any_command(at)
    if re.fullmatch(r"(prog|map|btf|link) \d+", at.target):
        yield Need(("CAP_SYS_ADMIN",))
    elif at.denied or at.errno == errno.EACCES:
        yield Need(("CAP_DAC_OVERRIDE",), (errno.EACCES,))


def _query(at: Situation) -> Iterator[Need]:
    """bpf_obj_get_next_id(): capable(CAP_SYS_ADMIN); bpf_prog_query(): CAP_NET_ADMIN."""
    yield from _any_command(at)
    if re.fullmatch(r"(prog|map|btf|link) ids", at.target):
        yield Need(("CAP_SYS_ADMIN",))
    elif at.target.endswith(" programs"):
        yield Need(("CAP_NET_ADMIN",))


def _read(at: Situation) -> Iterator[Need]:
    """Read a file of root's: open(2)."""
    if at.denied or at.errno == errno.EACCES:
        yield Need(("CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"), (errno.EACCES,))


def _token(at: Situation) -> Iterator[Need]:
    """bpf_token_create(): ns_capable(CAP_BPF) in the namespace of the bpffs, for which CAP_SYS_ADMIN does not stand."""
    yield from _any_command(at)
    yield Need(("CAP_BPF",), scope=Scope.TOKEN)


_OF_STAGE: dict[str, Callable[[Situation], Iterator[Need]]] = {
    "map_create": _map_create,
    "load": _load,
    "attach": _attach,
    "detach": _attach,
    "pin": _pin,
    "open": _open,
    "query": _query,
    "token": _token,
    "read": _read,
}
