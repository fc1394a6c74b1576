"""A tc filter by rtnetlink alone: the clsact qdisc and a bpf filter in it, without a bpf(2) call.

libbpf queries the program's name between the two (bpf_obj_get_info_by_fd()), which is a bpf() call that tc does not
need. Messages are those of linux/rtnetlink.h, linux/pkt_sched.h and linux/pkt_cls.h.
"""

from __future__ import annotations

import socket
import struct

from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.undo import Undo

_NEW_QDISC, _DEL_QDISC, _NEW_FILTER = 36, 37, 44
#: NLM_F_REQUEST | NLM_F_ACK, NLM_F_CREATE | NLM_F_EXCL (linux/netlink.h)
_REQUEST, _CREATE = 0x5, 0x600
#: TC_H_CLSACT and its handle, and its hook TC_H_MIN_INGRESS
_CLSACT, _HANDLE, _INGRESS = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2
#: priority 1, every protocol (ETH_P_ALL in network order)
_FIRST_OF_ALL = 1 << 16 | 0x0300
_KIND, _OPTIONS, _BPF_FD, _BPF_FLAGS, _DIRECT_ACTION = 1, 2, 6, 8, 1


def attach(program: int, ifindex: int, undo: Undo) -> None:
    """Create the clsact qdisc and a filter in it."""
    qdisc = struct.pack("=BxxxiIII", 0, ifindex, _HANDLE, _CLSACT, 0) + _attribute(_KIND, b"clsact\0")
    _request(_NEW_QDISC, _CREATE, qdisc, "clsact qdisc")
    undo.callback(_request, _DEL_QDISC, 0, qdisc, "clsact qdisc")
    options = _attribute(_BPF_FD, struct.pack("=I", program)) + _attribute(
        _BPF_FLAGS, struct.pack("=I", _DIRECT_ACTION)
    )
    where = struct.pack("=BxxxiIII", 0, ifindex, 0, _INGRESS, _FIRST_OF_ALL)
    _request(_NEW_FILTER, _CREATE, where + _attribute(_KIND, b"bpf\0") + _attribute(_OPTIONS, options), "tc filter")


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _request(kind: int, flags: int, body: bytes, what: str) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 1, 0) + body)
        # struct nlmsghdr, then struct nlmsgerr: 0, or an errno with its sign
        error = struct.unpack_from("=i", sock.recv(4096), 16)[0]
    if error:
        raise StepError(-error, "attach", what)
