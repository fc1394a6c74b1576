"""Sockets of every kind, descriptors of every size, and whose calls they are."""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import socket
import struct
import threading
from pathlib import Path

import pytest

from kernel_matrix.guest.pytest.marks import with_loaders
from kernel_matrix.guest.system import calls, execs
from suites.large_pids import FIRST, large_pids
from suites.sockets.conftest import Call, Monitor, Peer, Script, Totals, run_script
from suites.sockets.test_calls import DATAGRAM, INET, STREAM, UNIX, server_of

NETLINK, PACKET, VSOCK = socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK
#: IEEE 802, local experimental EtherType
EXPERIMENTAL = 0x88B5


@pytest.mark.parametrize("kind", [STREAM, DATAGRAM, socket.SOCK_SEQPACKET])
def test_unix_sockets_of_every_type(kind: int, monitor: Monitor) -> None:
    """Streams, datagrams and sequences of packets."""

    def script(script: Script) -> None:
        left, right = socket.socketpair(UNIX, kind)
        script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x" * 123))
        script.did(Call.RECVFROM, right.fileno(), UNIX, len(right.recv(1000)))

    monitor.watch(script)
    assert monitor.totals() == Totals(bytes_sent=123, bytes_received=123)


def test_netlink_is_a_network(monitor: Monitor) -> None:
    """Its messages count like any other's; an address in a call has a family and no port."""

    def script(script: Script) -> None:
        left, right = (socket.socket(NETLINK, socket.SOCK_RAW, socket.NETLINK_USERSOCK) for _ in range(2))
        left.bind((0, 0))
        right.bind((0, 0))
        message = struct.pack("=IHHII", 20, 16, 0, 0, 0) + b"abcd"
        sent = left.sendto(message, (right.getsockname()[0], 0))
        script.did(Call.SENDTO, left.fileno(), NETLINK, sent, peer=Peer(NETLINK))
        script.did(Call.RECVFROM, right.fileno(), NETLINK, len(right.recv(100)))

    monitor.watch(script)
    assert monitor.totals() == Totals(bytes_sent=20, bytes_received=20)


def test_frames_are_sent_and_received_by_calls(monitor: Monitor) -> None:
    """A packet socket moves whole frames, with their headers."""
    # made here: the script's process has no CAP_NET_RAW
    with socket.socket(PACKET, socket.SOCK_RAW, socket.htons(EXPERIMENTAL)) as sock:
        sock.bind(("lo", EXPERIMENTAL))

        def script(script: Script) -> None:
            sent = sock.send(bytes(12) + EXPERIMENTAL.to_bytes(2, "big") + b"x" * 50)
            script.did(Call.SENDTO, sock.fileno(), PACKET, sent)
            script.did(Call.RECVFROM, sock.fileno(), PACKET, len(sock.recv(100)))

        monitor.watch(script)
        assert monitor.totals() == Totals(bytes_sent=64, bytes_received=64)


def test_a_connection_may_have_no_port(monitor: Monitor) -> None:
    """A raw socket is connected to a host (raw(7)): an address, and port 0."""
    # made here: the script's process has no CAP_NET_RAW; 253 is a protocol for experiments (RFC 3692)
    with socket.socket(INET, socket.SOCK_RAW, 253) as sock:

        def script(script: Script) -> None:
            sock.connect(("127.1.2.3", 0))
            peer = Peer.of(INET, ("127.1.2.3", 0))
            script.did(Call.CONNECT, sock.fileno(), INET, 0, peer=peer)
            script.did(Call.SENDTO, sock.fileno(), INET, sock.send(b"x" * 30), peer=peer)

        monitor.watch(script)


@pytest.mark.parametrize("number", [255, 256, 1025, 70_000])
def test_a_descriptor_may_be_large(number: int, monitor: Monitor) -> None:
    """Wider than one byte, than FD_SETSIZE, than two bytes."""

    def script(script: Script) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100_000, 100_000))
        left, right = socket.socketpair(UNIX, STREAM)
        assert fcntl.fcntl(left.fileno(), fcntl.F_DUPFD, number) == number
        script.did(Call.WRITE, number, UNIX, os.write(number, b"x" * 7))
        script.did(Call.RECVFROM, right.fileno(), UNIX, len(right.recv(100)))
        script.did(Call.CLOSE, number, UNIX, 0)
        os.close(number)

    monitor.watch(script)
    assert monitor.totals() == Totals(bytes_sent=7, bytes_received=7, closes=1)


def test_a_descriptor_may_be_0(monitor: Monitor) -> None:
    """Where a service has its connection that inetd or systemd has accepted (inetd(8))."""

    def script(script: Script) -> None:
        left, right = socket.socketpair(UNIX, STREAM)
        os.dup2(left.fileno(), 0)
        script.did(Call.WRITE, 0, UNIX, os.write(0, b"x" * 7))
        script.did(Call.RECVFROM, right.fileno(), UNIX, len(right.recv(100)))
        script.did(Call.SENDTO, right.fileno(), UNIX, right.send(b"y" * 4))
        script.did(Call.READ, 0, UNIX, len(os.read(0, 100)))
        script.did(Call.CLOSE, 0, UNIX, 0)
        os.close(0)

    monitor.watch(script)
    assert monitor.totals() == Totals(bytes_sent=11, bytes_received=11, closes=1)


def test_the_name_has_up_to_15_bytes(monitor: Monitor) -> None:
    """TASK_COMM_LEN is 16, with the NUL (proc(5), /proc/pid/comm)."""
    name = "fifteen-letters"

    def script(script: Script) -> None:
        Path("/proc/self/comm").write_text(name)
        left, _right = socket.socketpair(UNIX, STREAM)
        script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x"))

    (event,) = monitor.watch(script)
    assert (event.comm, len(name)) == (name, 15)


def test_vsock_is_a_network(monitor: Monitor) -> None:
    """Through its loopback (vsock(7)): an address has a family, and of the connection's nothing is known."""
    local = 1  # VMADDR_CID_LOCAL

    def script(script: Script) -> None:
        server = socket.socket(VSOCK, STREAM)
        server.bind((local, 5000))
        server.listen(1)
        client = socket.socket(VSOCK, STREAM)
        client.connect((local, 5000))
        script.did(Call.CONNECT, client.fileno(), VSOCK, 0, peer=Peer(VSOCK))
        accepted, _ = server.accept()
        script.did(Call.ACCEPT4, server.fileno(), VSOCK, accepted.fileno(), peer=Peer())
        script.did(Call.SENDTO, client.fileno(), VSOCK, client.send(b"x" * 9), peer=Peer())
        script.did(Call.RECVFROM, accepted.fileno(), VSOCK, len(accepted.recv(100)), peer=Peer())

    monitor.watch(script)
    assert monitor.totals() == Totals(connects=1, accepts=1, bytes_sent=9, bytes_received=9)


def test_a_call_may_move_more_than_24_bits(monitor: Monitor) -> None:
    """32 MiB and a byte by one call at each end, which a socket's buffer takes in many parts."""
    size = (1 << 25) + 1

    def script(script: Script) -> None:
        left, right = socket.socketpair(UNIX, STREAM)
        reader = os.fork()
        if reader == 0:
            os._exit(len(right.recv(size, socket.MSG_WAITALL)) != size)
        script.did(Call.SENDTO, left.fileno(), UNIX, left.send(bytes(size)))
        assert os.waitpid(reader, 0)[1] == 0

    (sent,) = monitor.watch(script)
    assert (sent.result, sent.bytes) == (size, size)
    assert monitor.totals() == Totals(bytes_sent=size, bytes_received=size)


@pytest.mark.parametrize("changed", ["six ids", "user namespace"])
def test_the_uid_is_the_real_one_of_the_machine(changed: str, monitor: Monitor) -> None:
    """Not the effective one, nor the group's, nor the one inside of a user namespace."""
    left, right = socket.socketpair(UNIX, STREAM)

    def sends() -> None:
        if changed == "six ids":
            os.setresgid(2001, 2002, 2003)
            os.setresuid(1001, 1002, 1003)
        else:
            os.setresgid(2001, 2001, 2001)
            os.setresuid(1001, 1001, 1001)
            os.unshare(os.CLONE_NEWUSER)
            if os.getuid() == 1001:
                os._exit(253)
        left.send(b"x")

    with left, right:
        child = execs.in_child(sends)
        assert child.status == 0
        (event,) = monitor.events(child.pid)
        assert event.uid == 1001


def test_pids_are_those_outside_of_pid_namespaces(monitor: Monitor) -> None:
    """The sender is 1 in its own namespace."""

    def script(script: Script) -> None:
        left, right = socket.socketpair(UNIX, STREAM)
        os.unshare(os.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            left.send(str(os.getpid()).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        assert right.recv(10) == b"1"
        # a note of the sender's number, where a family goes
        script.did(Call.SENDTO, left.fileno(), pid, 1)

    pid, (note,), _ = run_script(script)
    sent, received = monitor.events(note.family, pid)
    assert (sent.pid, sent.tgid, sent.call) == (note.family, note.family, Call.SENDTO)
    assert (received.pid, received.tgid, received.call) == (pid, pid, Call.RECVFROM)


def test_pids_may_be_large(monitor: Monitor) -> None:
    """The process's, and the thread's, whose number is another."""

    def script(script: Script) -> None:
        left, _right = socket.socketpair(UNIX, STREAM)

        def send() -> None:
            # a note of the sender's number, where a family goes
            script.did(Call.SENDTO, left.fileno(), threading.get_native_id(), left.send(b"x"))

        thread = threading.Thread(target=send)
        thread.start()
        thread.join()

    with large_pids():
        pid, (note,), _ = run_script(script)
    (event,) = monitor.events(pid)
    assert FIRST <= pid < note.family
    assert (event.tgid, event.pid, event.call) == (pid, note.family, Call.SENDTO)


def test_each_processor_counts_its_own(monitor: Monitor) -> None:
    """And the totals are their sums."""

    def script(script: Script) -> None:
        left, _right = socket.socketpair(UNIX, STREAM)
        for cpu, size in ((0, 10), (1, 300)):
            os.sched_setaffinity(0, {cpu})
            script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x" * size))

    before = [totals.bytes_sent for totals in monitor.each_cpu()]
    monitor.watch(script)
    after = [totals.bytes_sent for totals in monitor.each_cpu()]
    assert [new - old for new, old in zip(after, before, strict=True)][:2] == [10, 300]
    assert monitor.totals() == Totals(bytes_sent=310)


#: its map is written for all processors at once, which the other loaders' programs do not do
@with_loaders("libbpf")
def test_totals_have_64_bits(monitor: Monitor) -> None:
    """From just below 2^32 on, each another distance, for calls that count in each of them."""

    def script(script: Script) -> None:
        server = server_of(INET)
        client = socket.socket(INET, STREAM)
        client.connect(server.getsockname())
        script.did(Call.CONNECT, client.fileno(), INET, 0)
        peer, _ = server.accept()
        script.did(Call.ACCEPT4, server.fileno(), INET, peer.fileno())
        script.did(Call.SENDTO, client.fileno(), INET, client.send(b"x" * 100))
        script.did(Call.RECVFROM, peer.fileno(), INET, len(peer.recv(60)))
        script.did(Call.CLOSE, server.fileno(), INET, 0)
        server.close()

    monitor.preset([(1 << 32) - distance for distance in range(1, 1 + len(Totals.__dataclass_fields__))])
    before = monitor.each_cpu()[0]
    assert before.connects == (1 << 32) - 1
    monitor.begin()
    monitor.watch(script)
    assert monitor.totals() == Totals(connects=1, accepts=1, bytes_sent=100, bytes_received=60, closes=1)


def test_a_vector_that_is_used_again_counts_what_is_new(monitor: Monitor) -> None:
    """As servers do: the lengths of the call before are still there, behind those of this one."""
    waitforone = 0x10000

    def script(script: Script) -> None:
        left, right = socket.socketpair(UNIX, DATAGRAM)
        vector = calls.Vector([1000] * 20, mmap.mmap(-1, 2 * mmap.PAGESIZE), 0)
        for sizes in ([10] * 20, [3], [5, 6]):
            for size in sizes:
                script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x" * size))
            assert vector.receive(right.fileno(), waitforone) == len(sizes)
            script.did(Call.RECVMMSG, right.fileno(), UNIX, len(sizes), moved=sum(sizes))
        assert vector.lengths() == [5, 6, *[10] * 18]

    monitor.watch(script)
    assert monitor.totals() == Totals(bytes_sent=214, bytes_received=214)
