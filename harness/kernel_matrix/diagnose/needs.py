"""The kernel's permission checks for each step: capabilities, each with the sysctl that makes it unnecessary. Pure.

The checks are in the kernel's own order, from its source; the measured capability table verifies them. A generator's
docstring names the kernel functions whose checks it yields.
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
#: values for a kernel that does not show the sysctl: upstream's defaults
_DEFAULTS = {BPF_SYSCTL: 2, PERF_SYSCTL: 2}
#: bpf_capable() and perfmon_capable() (linux/capability.h)
_BPF, _PERFMON = ("CAP_BPF", "CAP_SYS_ADMIN"), ("CAP_PERFMON", "CAP_SYS_ADMIN")


class Scope(enum.Enum):
    """The user namespace in which capabilities count."""

    #: the initial one: capable()
    INITIAL = enum.auto()
    #: with a token also the token's: bpf_token_capable()
    TOKEN = enum.auto()
    #: the process's own: ns_capable()
    OWN = enum.auto()


@dataclass(frozen=True, slots=True)
class Need:
    """A permission check: a process with one of these capabilities passes, and any process at a low sysctl."""

    #: any of them suffices; the first one has the fewest privileges and is the remedy
    capabilities: tuple[str, ...]
    #: the errors when the check fails
    errnos: tuple[int, ...] = (errno.EPERM,)
    #: checked only when this sysctl is higher than `low`
    sysctl: str = ""
    low: int = 0
    scope: Scope = Scope.INITIAL

    def counts(self, at: Situation) -> bool:
        """Whether capabilities of the process's user namespace count."""
        return not at.in_user_namespace or self.scope is Scope.OWN or (self.scope is Scope.TOKEN and at.token)

    def met(self, at: Situation) -> bool:
        """Whether the process passes the check."""
        if self.sysctl and at.sysctls.get(self.sysctl, _DEFAULTS[self.sysctl]) <= self.low:
            return True
        return self.counts(at) and at.has(*self.capabilities)

    def settable(self, at: Situation) -> bool:
        """Whether the sysctl exists and can be lowered: bpf_unpriv_handler() never changes a 1."""
        return self.sysctl in at.sysctls and (self.sysctl, at.sysctls[self.sysctl]) != (BPF_SYSCTL, 1)


#: the verifier's own checks: env->bpf_capable and env->allow_ptr_leaks
BPF, PERFMON = Need(_BPF, scope=Scope.TOKEN), Need(_PERFMON, scope=Scope.TOKEN)


def unmet(at: Situation) -> list[Need]:
    """Return the checks of this step that the process does not pass, in the kernel's order."""
    return [need for need in _OF_STAGE.get(at.stage, _any_command)(at) if not need.met(at)]


def remedy(needs: Sequence[Need], at: Situation) -> Remedy:
    """Return the smallest remedy for these needs: capabilities where they count, otherwise sysctls."""
    sysctls = [need for need in needs if not need.counts(at) and need.settable(at)]
    rest = [need for need in needs if need not in sysctls]
    if any(not need.counts(at) for need in rest):
        # in the initial namespace its capabilities are lost, it is not root, and must load what a token loaded for it
        stage = "load" if at.token and at.stage == "attach" else at.stage
        outside = replace(at, stage=stage, in_user_namespace=False, token=False, effective=0, uid=at.uid or 1)
        return Remedy(capabilities=_fewest(unmet(outside)), outside=True)
    return Remedy(capabilities=_fewest(rest), sysctls=_lowest(sysctls))


def alternative(needs: Sequence[Need], at: Situation) -> Remedy | None:
    """Return a remedy that uses sysctls wherever possible; None when there is none, or it equals `remedy`."""
    rest = [need for need in needs if not need.settable(at)]
    if any(not need.counts(at) for need in rest):
        return None
    capabilities = _fewest(rest)
    # a capability that is given for one need may meet another
    spare = [need for need in needs if need.counts(at) and set(need.capabilities) & set(capabilities)]
    sysctls = [need for need in needs if need.settable(at) and need not in spare]
    by_sysctls = Remedy(capabilities=capabilities, sysctls=_lowest(sysctls))
    return by_sysctls if sysctls and by_sysctls != remedy(needs, at) else None


def _fewest(needs: Sequence[Need]) -> tuple[str, ...]:
    """Return few capabilities that meet all needs: needs without a choice come first, because one may meet several."""
    chosen: list[str] = []
    for need in sorted(needs, key=lambda need: len(need.capabilities)):
        if not set(need.capabilities) & set(chosen):
            chosen.append(need.capabilities[0])
    return tuple(sorted(chosen, key=[name for need in needs for name in need.capabilities].index))


def _lowest(needs: Sequence[Need]) -> dict[str, int]:
    return {name: min(need.low for need in needs if need.sysctl == name) for name in {need.sysctl for need in needs}}


# -- bpf() as a whole


def _any_command(at: Situation) -> Iterator[Need]:
    """__sys_bpf() until c8644cd0efe7 (5.19): EPERM for every command; since then only for creating and loading."""
    # a kernel that charges memory to RLIMIT_MEMLOCK is older than 5.11
    if at.closes_all or at.charges_memlock:
        yield Need(_BPF, sysctl=BPF_SYSCTL)


# -- maps

#: map types without a check in their allocation and, since 6.4, in map_create()
_UNPRIVILEGED_MAPS = frozenset({
    "array", "percpu_array", "prog_array", "perf_event_array", "cgroup_array", "array_of_maps", "hash",
    "percpu_hash", "hash_of_maps", "ringbuf", "user_ringbuf", "cgroup_storage", "percpu_cgroup_storage",
})  # fmt: skip
#: map types that require CAP_NET_ADMIN, which CAP_SYS_ADMIN implies only since ed1ad5a7415d (6.9)
_NET_ADMIN_MAPS = frozenset({"devmap", "devmap_hash", "xskmap", "sockmap", "sockhash"})


def _map_create(at: Situation) -> Iterator[Need]:
    """map_create(), and before 6.4 the types' own alloc_check()."""
    if at.target in _UNPRIVILEGED_MAPS | _NET_ADMIN_MAPS:
        yield Need(_BPF, sysctl=BPF_SYSCTL, scope=Scope.TOKEN)
    else:
        yield Need(_BPF, scope=Scope.TOKEN)
    # an unknown type that is refused despite CAP_BPF, on a kernel without a memory limit, is one of these
    if at.target in _NET_ADMIN_MAPS or (not at.target and BPF.met(at) and not at.charges_memlock):
        yield Need(("CAP_NET_ADMIN",), scope=Scope.TOKEN)


# -- programs


def _load(at: Situation) -> Iterator[Need]:
    """bpf_prog_load(), and the checks for attaching if the process will attach the program on a known path."""
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
        # libbpf queries the program's name in between
        yield _NETLINK
    if at.kind == "cgroup_skb":
        # bpf_prog_attach_check_attach_type(): the only cgroup type that can be loaded without CAP_NET_ADMIN.
        # bpf_prog_attach() turns every refusal of that function into EINVAL, link_create() returns it unchanged.
        errnos = {"prog_attach": (errno.EINVAL,), "link": (errno.EPERM,)}.get(at.path, (errno.EINVAL, errno.EPERM))
        yield Need(("CAP_NET_ADMIN",), errnos, scope=Scope.TOKEN)


#: rtnetlink_rcv_msg(): netlink_net_capable(), which CAP_SYS_ADMIN does not satisfy
_NETLINK = Need(("CAP_NET_ADMIN",), scope=Scope.OWN)

#: hooks that are perf events
PERF_HOOKS = frozenset({"kprobe", "uprobe", "tracepoint", "perf_event"})


def _perf(at: Situation) -> Iterator[Need]:
    """Yield the checks of the file that describes the event, then those of perf_event_open()."""
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


#: Debian's patch of perf_event_open(): above this value only CAP_SYS_ADMIN suffices
_ANY_PERF = 2


# -- files and ids


def _pin(at: Situation) -> Iterator[Need]:
    """bpf_obj_do_pin(): it creates a file."""
    yield from _any_command(at)
    if at.denied or at.errno == errno.EACCES:
        yield Need(("CAP_DAC_OVERRIDE",), (errno.EACCES,))


def _open(at: Situation) -> Iterator[Need]:
    """bpf_*_get_fd_by_id(): capable(CAP_SYS_ADMIN); bpf_obj_do_get(): access to a file for reading and writing."""
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
    """open(2) of a file that belongs to root."""
    if at.denied or at.errno == errno.EACCES:
        yield Need(("CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"), (errno.EACCES,))


def _token(at: Situation) -> Iterator[Need]:
    """bpf_token_create(): ns_capable(CAP_BPF) in the bpffs's namespace, which CAP_SYS_ADMIN does not satisfy."""
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
