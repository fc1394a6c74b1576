"""The other end of each call: the address in the call, else that of the connection."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

import pytest

from kernel_matrix.guest.system import calls
from suites.sockets import raw
from suites.sockets.conftest import Call, Monitor, Peer, Script, run_script
from suites.sockets.test_calls import DATAGRAM, INET, INET6, RECEIVES, SENDS, STREAM, UNIX, pair, server_of

#: family -> an address of loopback whose bytes all differ from those of any other here
HOSTS: dict[int, str] = {INET: "127.1.2.3", INET6: "::1"}


def bound(family: int, kind: int = DATAGRAM) -> socket.socket:
    """Return a socket that is bound to a free port of loopback."""
    sock = socket.socket(family, kind)
    sock.bind((HOSTS[family], 0))
    return sock


def at(sock: socket.socket) -> Peer:
    """Return where a socket is bound."""
    return Peer.of(sock.family, sock.getsockname())


def connected(family: int) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection whose ends have different addresses and ports."""
    server = server_of(family)
    client = bound(family, STREAM)
    client.connect(server.getsockname())
    return client, server.accept()[0]


def test_an_address_is_in_the_order_of_the_network(monitor: Monitor) -> None:
    """127.1.2.3 is 127 first, and a port is a number: 258, not 513."""

    def script(script: Script) -> None:
        client = socket.socket(INET, DATAGRAM)
        client.connect(("127.1.2.3", 258))
        script.did(Call.CONNECT, client.fileno(), INET, 0)

    (event,) = monitor.watch(script)
    assert (event.peer_family, event.peer_port, event.peer_address) == (INET, 258, (127, 1, 2, 3, *[0] * 12))


@pytest.mark.parametrize("family", [INET, INET6])
def test_a_connection_names_the_other_end_of_every_call(family: int, monitor: Monitor) -> None:
    """From connect and accept to close, on both ends; the listener has none."""

    def script(script: Script) -> None:
        server = server_of(family)
        client = bound(family, STREAM)
        client.connect(server.getsockname())
        script.did(Call.CONNECT, client.fileno(), family, 0, peer=at(server))
        accepted, _ = server.accept()
        script.did(Call.ACCEPT4, server.fileno(), family, accepted.fileno(), peer=at(client))
        for sender, receiver in ((client, accepted), (accepted, client)):
            for call, send in SENDS.items():
                script.did(call, sender.fileno(), family, send(sender), peer=at(receiver))
                script.did(Call.RECVFROM, receiver.fileno(), family, len(receiver.recv(400)), peer=at(sender))
            for call, receive in RECEIVES.items():
                script.did(Call.SENDTO, sender.fileno(), family, sender.send(b"x" * 300), peer=at(receiver))
                script.did(call, receiver.fileno(), family, receive(receiver), peer=at(sender))
        for sock, peer in ((client, at(accepted)), (server, Peer())):
            script.did(Call.CLOSE, sock.fileno(), family, 0, peer=peer)
            sock.close()

    monitor.watch(script)


def test_a_mapped_address_is_one_of_ipv6(monitor: Monitor) -> None:
    """RFC 4291, 2.5.5.2: ::ffff:127.1.2.3."""

    def script(script: Script) -> None:
        with bound(INET, STREAM) as server:
            server.listen()
            client = socket.socket(INET6, STREAM)
            address = ("::ffff:127.1.2.3", server.getsockname()[1])
            client.connect(address)
            peer = Peer.of(INET6, address)
            assert peer.address == bytes(10) + b"\xff\xff\x7f\x01\x02\x03"
            script.did(Call.CONNECT, client.fileno(), INET6, 0, peer=peer)
            script.did(Call.SENDTO, client.fileno(), INET6, client.send(b"x"), peer=peer)
            script.did(Call.CLOSE, server.fileno(), INET, 0, peer=Peer())

    monitor.watch(script)


#: name -> a call that sends 9 bytes to an address
NAMED_SENDS: dict[Call, Callable[[socket.socket, tuple[str, int]], int]] = {
    Call.SENDTO: lambda sock, address: sock.sendto(b"x" * 9, address),
    Call.SENDMSG: lambda sock, address: sock.sendmsg([b"x" * 9], [], 0, address),
}
#: name -> a call that receives and asks for the sender's address
NAMED_RECEIVES: dict[Call, Callable[[socket.socket], int]] = {
    Call.RECVFROM: lambda sock: len(sock.recvfrom(100)[0]),
    Call.RECVMSG: lambda sock: len(sock.recvmsg(100)[0]),
}


@pytest.mark.parametrize("family", [INET, INET6])
@pytest.mark.parametrize(("send", "receive"), list(zip(NAMED_SENDS, NAMED_RECEIVES, strict=True)))
def test_a_datagram_s_address_is_in_the_call(send: Call, receive: Call, family: int, monitor: Monitor) -> None:
    """Neither socket is connected: whom it goes to and whom it comes from is named by the call."""

    def script(script: Script) -> None:
        client, server = bound(family), bound(family)
        sent = NAMED_SENDS[send](client, server.getsockname())
        script.did(send, client.fileno(), family, sent, peer=at(server))
        script.did(receive, server.fileno(), family, NAMED_RECEIVES[receive](server), peer=at(client))

    monitor.watch(script)


@pytest.mark.parametrize("send", NAMED_SENDS)
def test_a_call_s_address_counts_before_the_connection_s(send: Call, monitor: Monitor) -> None:
    """A connected datagram socket may send to another address (udp(7)), of IPv4 from a socket of IPv6 as well."""

    def script(script: Script) -> None:
        client, first, other = (bound(INET) for _ in range(3))
        client.connect(first.getsockname())
        script.did(Call.CONNECT, client.fileno(), INET, 0, peer=at(first))
        sent = NAMED_SENDS[send](client, other.getsockname())
        script.did(send, client.fileno(), INET, sent, peer=at(other))
        script.did(Call.SENDTO, client.fileno(), INET, client.send(b"y"), peer=at(first))

    monitor.watch(script)


def test_an_address_that_nobody_asked_for_is_not_known(monitor: Monitor) -> None:
    """Recv without a buffer for the address, on a socket that is not connected: no peer; read likewise."""

    def script(script: Script) -> None:
        client, server = bound(INET), bound(INET)
        for call in (Call.RECVFROM, Call.READ):
            sent = client.sendto(b"x" * 300, server.getsockname())
            script.did(Call.SENDTO, client.fileno(), INET, sent, peer=at(server))
            script.did(call, server.fileno(), INET, RECEIVES[call](server), peer=Peer())

    monitor.watch(script)


def test_the_addresses_of_several_messages_are_not_read(monitor: Monitor) -> None:
    """A blind spot: each message of a recvmmsg may come from another; only a connection's peer is known."""

    def script(script: Script) -> None:
        client, server = bound(INET), bound(INET)
        sent = client.sendto(b"x" * 5, server.getsockname())
        script.did(Call.SENDTO, client.fileno(), INET, sent, peer=at(server))
        assert calls.recvmmsg(server.fileno(), [10]) == [5]
        script.did(Call.RECVMMSG, server.fileno(), INET, 1, moved=5, peer=Peer())
        server.connect(client.getsockname())
        script.did(Call.CONNECT, server.fileno(), INET, 0, peer=at(client))
        assert calls.sendmmsg(server.fileno(), [b"x" * 5]) == [5]
        script.did(Call.SENDMMSG, server.fileno(), INET, 1, moved=5, peer=at(client))

    monitor.watch(script)


def test_a_unix_socket_has_a_family_and_no_address(monitor: Monitor) -> None:
    """Of a name in the call the family is reported, of a connection nothing: most of them have no name."""

    def script(script: Script) -> None:
        server, client = (socket.socket(UNIX, DATAGRAM) for _ in range(2))
        server.bind(b"\0server")
        client.bind(b"\0client")
        sent = client.sendto(b"x" * 3, b"\0server")
        script.did(Call.SENDTO, client.fileno(), UNIX, sent, peer=Peer(UNIX))
        data, _ = server.recvfrom(10)
        script.did(Call.RECVFROM, server.fileno(), UNIX, len(data), peer=Peer(UNIX))
        left, right = pair()
        script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x"), peer=Peer())
        data, _ = right.recvfrom(10)
        script.did(Call.RECVFROM, right.fileno(), UNIX, len(data), peer=Peer())

    monitor.watch(script)


@pytest.mark.parametrize("length", [0, 1, 2, 15])
def test_a_name_that_is_too_short_is_not_read_further(length: int, monitor: Monitor) -> None:
    """The kernel refuses it with EINVAL (net/ipv4/af_inet.c); what lies behind it in memory is none of an address."""

    def script(script: Script) -> None:
        client = socket.socket(INET, STREAM)
        assert calls.connect(client.fileno(), ("127.1.2.3", 258), length) == -22
        family = INET if length >= 2 else 0
        script.did(Call.CONNECT, client.fileno(), INET, -22, peer=Peer(family))

    monitor.watch(script)


@pytest.mark.parametrize("length", [16, 23, 24, 27, 28])
def test_an_address_of_ipv6_needs_no_scope(length: int, monitor: Monitor) -> None:
    """It is whole from 24 bytes on (SIN6_LEN_RFC2133), before which the kernel refuses it with EINVAL."""
    address = socket.inet_pton(INET6, "::1")
    whole = struct.pack("=H", INET6) + struct.pack("!HI16sI", 258, 0, address, 0)

    def script(script: Script) -> None:
        client = socket.socket(INET6, DATAGRAM)
        result = raw.connect(client.fileno(), whole[:length])
        assert result == (0 if length >= 24 else -errno.EINVAL)
        peer = Peer(INET6, 258, address) if length >= 24 else Peer(INET6)
        script.did(Call.CONNECT, client.fileno(), INET6, result, peer=peer)

    monitor.watch(script)


def test_an_address_without_a_family_is_none(monitor: Monitor) -> None:
    """A send on a connection goes to its other end, whatever address it names (tcp_sendmsg())."""

    def script(script: Script) -> None:
        client, _accepted = connected(INET)
        sent = raw.sendto(client.fileno(), 3, 0, bytes(16))
        script.did(Call.SENDTO, client.fileno(), INET, sent, peer=Peer.of(INET, client.getpeername()))

    pid, (note,), _ = run_script(script)
    (event,) = (event for event in monitor.events(pid) if event.call == Call.SENDTO)
    assert (event.result, event.peer) == (3, note.peer)


def test_a_datagram_to_no_family_names_nobody(monitor: Monitor) -> None:
    """A blind spot: of IPv4 it goes to that address nevertheless (udp_sendmsg())."""

    def script(script: Script) -> None:
        server, client = bound(INET), socket.socket(INET, DATAGRAM)
        host, port = server.getsockname()
        name = struct.pack("=H", 0) + struct.pack("!H4s8x", port, socket.inet_aton(host))
        sent = raw.sendto(client.fileno(), 3, 0, name)
        script.did(Call.SENDTO, client.fileno(), INET, sent, peer=Peer())
        received = len(server.recv(10))
        script.did(Call.RECVFROM, server.fileno(), INET, received, peer=Peer())
        assert (sent, received) == (3, 3)

    monitor.watch(script)


def test_a_buffer_that_is_too_short_has_no_address(monitor: Monitor) -> None:
    """The kernel writes 4 bytes of the sender's address and says that it has 16 (recv(2)): the rest is not read."""

    def script(script: Script) -> None:
        client, server = bound(INET), bound(INET)
        sent = client.sendto(b"x" * 6, server.getsockname())
        script.did(Call.SENDTO, client.fileno(), INET, sent, peer=at(server))
        assert calls.recvfrom(server.fileno(), room=4) == (6, 16)
        script.did(Call.RECVFROM, server.fileno(), INET, 6, peer=Peer(INET))

    monitor.watch(script)


@pytest.mark.parametrize("call", [Call.RECVFROM, Call.RECVMSG])
def test_an_old_address_in_the_room_is_none(call: Call, monitor: Monitor) -> None:
    """Of a connection the kernel writes no address, and says that it has none (tcp_recvmsg()): the room stays so."""
    old = struct.pack("=H", INET) + struct.pack("!H4s8x", 513, socket.inet_aton("10.9.8.7"))

    def script(script: Script) -> None:
        client, accepted = connected(INET)
        client.send(b"xyz")
        receive = raw.recvfrom if call is Call.RECVFROM else raw.recvmsg
        result, name = receive(accepted.fileno(), 10, 0, len(old), old)
        assert (result, name) == (3, b"")
        script.did(call, accepted.fileno(), INET, result, peer=Peer.of(INET, accepted.getpeername()))

    pid, (note,), _ = run_script(script)
    (event,) = (event for event in monitor.events(pid) if event.call == call)
    assert (event.result, event.peer) == (3, note.peer)


def test_a_failed_receive_has_no_address(monitor: Monitor) -> None:
    """The kernel has written none: what is in the buffer is the caller's, of the call before."""

    def script(script: Script) -> None:
        client, server = bound(INET), bound(INET)
        server.settimeout(0)
        sent = client.sendto(b"x" * 6, server.getsockname())
        script.did(Call.SENDTO, client.fileno(), INET, sent, peer=at(server))
        assert calls.recvfrom(server.fileno(), room=16, times=2) == (-11, 16)
        script.did(Call.RECVFROM, server.fileno(), INET, 6, peer=at(client))
        script.did(Call.RECVFROM, server.fileno(), INET, -11, peer=Peer())

    monitor.watch(script)


@pytest.mark.parametrize("family", [INET, INET6])
@pytest.mark.parametrize("kind", [STREAM, DATAGRAM])
def test_a_connection_that_is_taken_back_names_nobody(kind: int, family: int, monitor: Monitor) -> None:
    """The kernel leaves the address in the socket, without its port (net/ipv4/tcp.c, tcp_disconnect())."""

    def script(script: Script) -> None:
        server = bound(family, kind)
        if kind == STREAM:
            server.listen()
        client = socket.socket(family, kind)
        client.connect(server.getsockname())
        script.did(Call.CONNECT, client.fileno(), family, 0, peer=at(server))
        assert calls.disconnect(client.fileno()) == 0
        script.did(Call.CONNECT, client.fileno(), family, 0, peer=Peer())
        script.did(Call.CLOSE, client.fileno(), family, 0, peer=Peer())
        client.close()

    monitor.watch(script)


@pytest.mark.parametrize("family", [INET, INET6])
def test_a_connection_that_has_failed_names_nobody(family: int, monitor: Monitor) -> None:
    """The connect itself names whom it asked for; what comes behind it is to nobody (inet_stream_connect())."""

    def script(script: Script) -> None:
        server = bound(family, STREAM)
        client = socket.socket(family, STREAM)
        assert client.connect_ex(server.getsockname()) == errno.ECONNREFUSED
        script.did(Call.CONNECT, client.fileno(), family, -errno.ECONNREFUSED, peer=at(server))
        script.did(Call.CLOSE, client.fileno(), family, 0, peer=Peer())
        client.close()

    monitor.watch(script)
