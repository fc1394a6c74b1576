"""The errors of calls, up to the edges of what counts as interrupted."""

from __future__ import annotations

import errno
import os
import socket
import struct

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls import bpf_calls
from kernel_matrix.guest.pytest.marks import requires
from kernel_matrix.guest.system import calls
from suites.sockets.conftest import Call, Monitor, Peer, Script, State, Totals, run_script
from suites.sockets.test_calls import DATAGRAM, INET

#: linux/errno.h: ERESTARTSYS to ERESTART_RESTARTBLOCK, between the last errno of old and the first of NFS
INTERRUPTIONS = range(512, 517)


@requires("lsm_active")
def test_every_errno_of_a_connect_has_a_state(monitor: Monitor) -> None:
    """From 1 to 4095 (MAX_ERRNO), by an LSM program: no protocol returns all of them."""
    states = dict.fromkeys(range(1, 4096), State.FAILED)
    states |= dict.fromkeys([errno.EINTR, *INTERRUPTIONS], State.INTERRUPTED)
    states |= {errno.EINPROGRESS: State.IN_PROGRESS, errno.EALREADY: State.UNCHANGED, errno.EISCONN: State.UNCHANGED}
    near = {*range(1, 136), *range(505, 530), 4094, 4095}

    with steps.loaded(steps.object_path("fixtures/errnos")) as fixture:

        def script(_: Script) -> None:
            client = socket.socket(INET, DATAGRAM)
            for number in sorted(near):
                bpf_calls.update(fixture.maps["refusals"], struct.pack("=Qq", os.getpid(), -number))
                assert calls.connect(client.fileno(), ("127.0.0.1", 9), 16) == -number
            bpf_calls.update(fixture.maps["refusals"], bytes(16))

        with steps.by_section(fixture.programs["errnos_connect"]):
            pid, _, _ = run_script(script)
    seen = [(event.result, event.state) for event in monitor.events(pid) if event.call == Call.CONNECT]
    assert seen == [(-number, states[number]) for number in sorted(near)]
    interrupted = 1 + len(INTERRUPTIONS)
    assert monitor.totals() == Totals(
        connects_failed=len(near) - interrupted - 3,
        connects_in_progress=1,
        connects_interrupted=interrupted,
        connects_repeated=2,
    )


def test_a_send_that_is_not_permitted_has_failed(monitor: Monitor) -> None:
    """EPERM is 1, next to 0: only who may configure the network sends to a group (netlink_sendmsg())."""

    def script(script: Script) -> None:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            sock.sendto(bytes(16), (0, 1))
        except PermissionError as error:
            peer = Peer(socket.AF_NETLINK)
            script.did(Call.SENDTO, sock.fileno(), socket.AF_NETLINK, -(error.errno or 0), peer=peer)

    (event,) = monitor.watch(script, uid=1000)
    assert (event.result, event.state, event.bytes) == (-errno.EPERM, State.FAILED, 0)
    assert monitor.totals() == Totals()
