"""The targets that are made for programs to be attached to: a pair of interfaces, a cgroup, a socket, an event."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.system import cgroups, netns

#: an interface's name in its namespace
_NETKIT = "netkit0"
#: how the types of programs begin whose target is a cgroup
_CGROUP = ("cgroup_", "sock_ops", "lsm")
#: the types of programs whose targets are in a namespace
_NAMESPACED = frozenset({
    "xdp", "sched_cls", "sched_act", "netfilter", "lwt_in", "lwt_out", "lwt_xmit", "sk_lookup", "flow_dissector",
})  # fmt: skip


class Place:
    """Makes each target when a program first needs it, and removes them all at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._veth: netns.Veth | None = None
        self._cgroup: int | None = None
        self._inside = False

    @property
    def veth(self) -> netns.Veth:
        """A veth pair, each end in a namespace of its own."""
        if self._veth is None:
            self._veth = self._stack.enter_context(netns.veth())
        return self._veth

    @property
    def cgroup(self) -> int:
        """An fd of an empty cgroup."""
        if self._cgroup is None:
            self._cgroup = self._stack.enter_context(cgroups.cgroup())
        return self._cgroup

    @contextmanager
    def in_namespace(self) -> Generator[netns.Interface]:
        """Enter the near end's namespace for the block; yield that end."""
        near = self.veth.near
        with nullcontext() if self._inside else near.namespace.entered():
            yield near

    @property
    def interface(self) -> int:
        """The index of the near end, 0 when no program needed it."""
        return 0 if self._veth is None else self._veth.near.index

    @contextmanager
    def entered(self) -> Generator[None]:
        """Enter the near end's namespace for the block, if there is one."""
        with nullcontext() if self._veth is None else self.in_namespace():
            yield

    def join_cgroup(self) -> None:
        """Move this process, a child, into the cgroup, if there is one."""
        if self._cgroup is not None:
            Path(f"/proc/self/fd/{self._cgroup}/cgroup.procs").write_text("0")

    @contextmanager
    def prepared_for(self, kind: str) -> Generator[None]:
        """Make what only a privileged process can make for programs of a type, and enter its namespace for the block.

        The block may attach without the privileges to do so itself.
        """
        if kind not in _NAMESPACED:
            if kind.startswith(_CGROUP):
                assert self.cgroup
            yield
            return
        with self.in_namespace():
            self._inside = True
            try:
                yield
            finally:
                self._inside = False

    def close(self) -> None:
        """Remove what was made."""
        self._stack.close()


@contextmanager
def netkit(kind: str) -> Generator[int]:
    """Make a netkit pair in this namespace; yield the index of its primary. Raises StepError without such devices."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as netlink:
        try:
            netlink.link("add", ifname=_NETKIT, kind="netkit")
        except NetlinkError as error:
            raise StepError(error.code, "attach", f"{kind} link", "", "sched_cls") from error
        index = socket.if_nametoindex(_NETKIT)
        try:
            yield index
        finally:
            netlink.link("del", index=index)
