"""Each network call on a socket is one event, with what the kernel says it moved."""

from __future__ import annotations

import errno
import mmap
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_matrix.guest.system import calls
from kernel_matrix.guest.system.deadline import limit
from suites.sockets.conftest import Call, Kind, Monitor, Peer, Script, State, Totals

INET, INET6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def server_of(family: int) -> socket.socket:
    """Return a listening socket: on a free port of loopback, or under an abstract name of its own."""
    addresses: dict[int, tuple[str, int] | bytes] = {INET: ("127.0.0.1", 0), INET6: ("::1", 0), UNIX: b"\0server"}
    server = socket.socket(family, STREAM)
    server.bind(addresses[family])
    server.listen(8)
    return server


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected unix stream sockets."""
    return socket.socketpair(UNIX, STREAM)


def datagrams() -> tuple[socket.socket, socket.socket]:
    """Return a UDP socket and another that is bound and that the first is connected to; connect is an event."""
    receiver = socket.socket(INET, DATAGRAM)
    receiver.bind(("127.0.0.1", 0))
    return socket.socket(INET, DATAGRAM), receiver


def taken_listener(script: Script) -> tuple[str, int]:
    """Return the address of a listener whose backlog of 0 is taken: it drops every SYN, so connects go on for long.

    net/ipv4/tcp_input.c, tcp_conn_request(): sk_acceptq_is_full().
    """
    server = socket.socket(INET, STREAM)
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    address: tuple[str, int] = server.getsockname()
    first = socket.socket(INET, STREAM)
    first.connect(address)
    script.did(Call.CONNECT, first.fileno(), INET, 0)
    return address


@pytest.mark.parametrize("family", [INET, INET6, UNIX])
def test_a_whole_conversation(family: int, monitor: Monitor) -> None:
    """Connect, accept, both directions, both closes: each call one event, and the totals are their sums."""

    def script(script: Script) -> None:
        server = server_of(family)
        client = socket.socket(family, STREAM)
        client.connect(server.getsockname())
        script.did(Call.CONNECT, client.fileno(), family, 0)
        peer, _ = server.accept()
        script.did(Call.ACCEPT4, server.fileno(), family, peer.fileno())
        script.did(Call.SENDTO, client.fileno(), family, client.send(b"x" * 1000))
        script.did(Call.RECVFROM, peer.fileno(), family, len(peer.recv(4000)))
        script.did(Call.SENDTO, peer.fileno(), family, peer.send(b"y" * 77))
        script.did(Call.RECVFROM, client.fileno(), family, len(client.recv(10)))
        script.did(Call.RECVFROM, client.fileno(), family, len(client.recv(4000)))
        for sock in (client, peer, server):
            script.did(Call.CLOSE, sock.fileno(), family, 0)
            sock.close()

    events = monitor.watch(script)
    assert [event.result for event in events[2:7]] == [1000, 1000, 77, 10, 67]
    assert monitor.totals() == Totals(connects=1, accepts=1, bytes_sent=1077, bytes_received=1077, closes=3)


@pytest.mark.parametrize("family", [INET, INET6])
def test_a_refused_connect_has_failed(family: int, monitor: Monitor) -> None:
    """Nobody listens: ECONNREFUSED."""

    def script(script: Script) -> None:
        server = server_of(family)
        address = server.getsockname()
        script.did(Call.CLOSE, server.fileno(), family, 0)
        server.close()
        client = socket.socket(family, STREAM)
        assert client.connect_ex(address) == errno.ECONNREFUSED
        script.did(Call.CONNECT, client.fileno(), family, -errno.ECONNREFUSED, peer=Peer.of(family, address))

    monitor.watch(script)
    assert monitor.totals() == Totals(connects_failed=1, closes=1)


def test_a_connect_without_a_route_has_failed(monitor: Monitor) -> None:
    """The namespace knows loopback only: ENETUNREACH."""

    def script(script: Script) -> None:
        client = socket.socket(INET, STREAM)
        assert client.connect_ex(("192.0.2.1", 9)) == errno.ENETUNREACH
        peer = Peer.of(INET, ("192.0.2.1", 9))
        script.did(Call.CONNECT, client.fileno(), INET, -errno.ENETUNREACH, peer=peer)

    monitor.watch(script)
    assert monitor.totals() == Totals(connects_failed=1)


def test_a_connect_to_a_path_that_is_not_there_has_failed(monitor: Monitor) -> None:
    """Unix sockets fail with ENOENT."""

    def script(script: Script) -> None:
        client = socket.socket(UNIX, STREAM)
        assert client.connect_ex("/no/such/socket") == errno.ENOENT
        script.did(Call.CONNECT, client.fileno(), UNIX, -errno.ENOENT)

    monitor.watch(script)


def test_a_connect_in_progress_is_neither_done_nor_failed(monitor: Monitor) -> None:
    """A non-blocking connect. EINPROGRESS has a state of its own; the finished socket's next connect says 0, once."""

    def script(script: Script) -> None:
        server = server_of(INET)
        client = socket.socket(INET, STREAM)
        client.settimeout(0)
        assert client.connect_ex(server.getsockname()) == errno.EINPROGRESS
        script.did(Call.CONNECT, client.fileno(), INET, -errno.EINPROGRESS)
        # the handshake on loopback is over before connect returns: asking again tells
        assert client.connect_ex(server.getsockname()) == 0
        script.did(Call.CONNECT, client.fileno(), INET, 0)

    first, second = monitor.watch(script)
    assert (first.state, second.state) == (State.IN_PROGRESS, State.DONE)
    assert monitor.totals() == Totals(connects=1, connects_in_progress=1)


def test_a_non_blocking_connect_to_nobody_fails_later(monitor: Monitor) -> None:
    """In progress first; the answer is the second call's."""

    def script(script: Script) -> None:
        server = server_of(INET)
        address = server.getsockname()
        script.did(Call.CLOSE, server.fileno(), INET, 0)
        server.close()
        client = socket.socket(INET, STREAM)
        client.settimeout(0)
        peer = Peer.of(INET, address)
        assert client.connect_ex(address) == errno.EINPROGRESS
        script.did(Call.CONNECT, client.fileno(), INET, -errno.EINPROGRESS, peer=peer)
        assert client.connect_ex(address) == errno.ECONNREFUSED
        script.did(Call.CONNECT, client.fileno(), INET, -errno.ECONNREFUSED, peer=peer)

    monitor.watch(script)
    assert monitor.totals() == Totals(connects_failed=1, connects_in_progress=1, closes=1)


def test_a_connect_that_poll_finishes_is_not_resolved(monitor: Monitor) -> None:
    """A blind spot: it ends in the handshake, which is nobody's call; poll and getsockopt are not looked at."""

    def script(script: Script) -> None:
        server = server_of(INET)
        client = socket.socket(INET, STREAM)
        client.settimeout(0)
        assert client.connect_ex(server.getsockname()) == errno.EINPROGRESS
        script.did(Call.CONNECT, client.fileno(), INET, -errno.EINPROGRESS)
        assert select.select([], [client], [], limit(5))[1] == [client]
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0

    monitor.watch(script)
    assert monitor.totals() == Totals(connects_in_progress=1)


def test_a_connect_that_goes_on_has_not_failed(monitor: Monitor) -> None:
    """EALREADY: asking again changes nothing."""

    def script(script: Script) -> None:
        address = taken_listener(script)
        client = socket.socket(INET, STREAM)
        client.settimeout(0)
        for number in (errno.EINPROGRESS, errno.EALREADY, errno.EALREADY):
            assert client.connect_ex(address) == number
            script.did(Call.CONNECT, client.fileno(), INET, -number, peer=Peer.of(INET, address))

    events = monitor.watch(script)
    assert [event.state for event in events[1:]] == [State.IN_PROGRESS, State.UNCHANGED, State.UNCHANGED]
    assert monitor.totals() == Totals(connects=1, connects_in_progress=1, connects_repeated=2)


def test_a_connect_of_a_connected_socket_has_not_failed(monitor: Monitor) -> None:
    """EISCONN: the connection is what it was. The peer of the event is the one that was asked for."""

    def script(script: Script) -> None:
        server = server_of(INET)
        client = socket.socket(INET, STREAM)
        client.connect(server.getsockname())
        script.did(Call.CONNECT, client.fileno(), INET, 0)
        assert client.connect_ex(("127.0.0.2", 7)) == errno.EISCONN
        script.did(Call.CONNECT, client.fileno(), INET, -errno.EISCONN, peer=Peer.of(INET, ("127.0.0.2", 7)))

    monitor.watch(script)
    assert monitor.totals() == Totals(connects=1, connects_repeated=1)


def test_a_send_with_an_address_on_a_stream_has_failed(monitor: Monitor) -> None:
    """EISCONN of a send is a failure (send(2)): only a connect can be one too many."""

    def script(script: Script) -> None:
        left, _right = pair()
        with pytest.raises(OSError, match="already connected"):
            left.sendto(b"x", b"\0nobody")
        script.did(Call.SENDTO, left.fileno(), UNIX, -errno.EISCONN, peer=Peer(UNIX))

    (event,) = monitor.watch(script)
    assert event.state == State.FAILED
    assert monitor.totals() == Totals()


def test_a_send_can_begin_a_connection(monitor: Monitor) -> None:
    """TCP Fast Open (RFC 7413): in progress like a connect, but no connect; the second send (EALREADY) has failed."""

    def script(script: Script) -> None:
        address = taken_listener(script)
        client = socket.socket(INET, STREAM)
        client.settimeout(0)
        for number in (errno.EINPROGRESS, errno.EALREADY):
            with pytest.raises(BlockingIOError) as caught:
                client.sendto(b"x", socket.MSG_FASTOPEN, address)
            assert caught.value.errno == number
            script.did(Call.SENDTO, client.fileno(), INET, -number, peer=Peer.of(INET, address))

    events = monitor.watch(script)
    assert [event.state for event in events[1:]] == [State.IN_PROGRESS, State.FAILED]
    assert monitor.totals() == Totals(connects=1)


def test_disconnecting_is_a_connect_without_a_peer(monitor: Monitor) -> None:
    """AF_UNSPEC takes a datagram socket's address away (connect(2)): a call that works, and counts as one."""

    def script(script: Script) -> None:
        client, server = datagrams()
        client.connect(server.getsockname())
        script.did(Call.CONNECT, client.fileno(), INET, 0)
        assert calls.disconnect(client.fileno()) == 0
        script.did(Call.CONNECT, client.fileno(), INET, 0, peer=Peer())

    monitor.watch(script)
    assert monitor.totals() == Totals(connects=2)


def test_a_datagram_socket_connects_at_once(monitor: Monitor) -> None:
    """For UDP connect sets an address."""

    def script(script: Script) -> None:
        client, server = datagrams()
        client.connect(server.getsockname())
        script.did(Call.CONNECT, client.fileno(), INET, 0)

    monitor.watch(script)


def test_ipv4_through_an_ipv6_socket_is_the_sockets_family(monitor: Monitor) -> None:
    """The family is the socket's, also for a mapped address."""

    def script(script: Script) -> None:
        server = server_of(INET)
        client = socket.socket(INET6, STREAM)
        client.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        script.did(Call.CONNECT, client.fileno(), INET6, 0)

    monitor.watch(script)


def test_accept_and_accept4_are_both_seen(monitor: Monitor) -> None:
    """Python calls accept4, other programs the older one."""

    def script(script: Script) -> None:
        server = server_of(INET)
        for _ in range(2):
            client = socket.socket(INET, STREAM)
            client.connect(server.getsockname())
            script.did(Call.CONNECT, client.fileno(), INET, 0)
            client.detach()
        script.did(Call.ACCEPT, server.fileno(), INET, calls.accept(server.fileno()))
        script.did(Call.ACCEPT4, server.fileno(), INET, server.accept()[0].detach())

    monitor.watch(script)
    assert monitor.totals() == Totals(connects=2, accepts=2)


def test_an_accept_with_nobody_there_has_failed(monitor: Monitor) -> None:
    """A non-blocking accept: EAGAIN, and no connection is counted."""

    def script(script: Script) -> None:
        server = server_of(INET)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
        script.did(Call.ACCEPT4, server.fileno(), INET, -errno.EAGAIN)

    monitor.watch(script)
    assert monitor.totals() == Totals()


#: name -> a call that sends 300 bytes; returns what went
SENDS: dict[Call, Callable[[socket.socket], int]] = {
    Call.SENDTO: lambda left: left.send(b"x" * 300),
    Call.SENDMSG: lambda left: left.sendmsg([b"x" * 100, b"x" * 200]),
    Call.WRITE: lambda left: os.write(left.fileno(), b"x" * 300),
    Call.WRITEV: lambda left: os.writev(left.fileno(), [b"x" * 299, b"x"]),
    Call.PWRITEV2: lambda left: os.pwritev(left.fileno(), [b"x" * 300], -1, os.RWF_HIPRI),
}

#: name -> a call that receives up to 400 bytes
RECEIVES: dict[Call, Callable[[socket.socket], int]] = {
    Call.RECVFROM: lambda right: len(right.recv(400)),
    Call.RECVMSG: lambda right: len(right.recvmsg(400)[0]),
    Call.READ: lambda right: len(os.read(right.fileno(), 400)),
    Call.READV: lambda right: os.readv(right.fileno(), [bytearray(100), bytearray(300)]),
    Call.PREADV2: lambda right: os.preadv(right.fileno(), [bytearray(400)], -1, os.RWF_HIPRI),
}


@pytest.mark.parametrize("call", SENDS)
def test_each_way_to_send_counts_what_went(call: Call, monitor: Monitor) -> None:
    """300 bytes whatever the call."""

    def script(script: Script) -> None:
        left, right = pair()
        script.did(call, left.fileno(), UNIX, SENDS[call](left))
        assert len(right.recv(1000)) == 300
        script.did(Call.RECVFROM, right.fileno(), UNIX, 300)

    monitor.watch(script)
    assert monitor.totals() == Totals(bytes_sent=300, bytes_received=300)


@pytest.mark.parametrize("call", RECEIVES)
def test_each_way_to_receive_counts_what_came(call: Call, monitor: Monitor) -> None:
    """300 bytes are there, 400 are asked for: the return value counts, not the request."""

    def script(script: Script) -> None:
        left, right = pair()
        script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x" * 300))
        script.did(call, right.fileno(), UNIX, RECEIVES[call](right))

    events = monitor.watch(script)
    assert events[1].bytes == 300
    assert monitor.totals() == Totals(bytes_sent=300, bytes_received=300)


def test_several_datagrams_in_one_call_count_their_bytes(monitor: Monitor) -> None:
    """Both calls return how many messages went, not their bytes; the bytes are in each message's header."""

    def script(script: Script) -> None:
        client, server = datagrams()
        client.connect(server.getsockname())
        script.did(Call.CONNECT, client.fileno(), INET, 0)
        sent = calls.sendmmsg(client.fileno(), [b"a" * 10, b"b" * 200, b"", b"d" * 3])
        assert sent == [10, 200, 0, 3]
        script.did(Call.SENDMMSG, client.fileno(), INET, 4, moved=213)
        assert calls.recvmmsg(server.fileno(), [100] * 8) == [10, 100, 0, 3]
        # the second datagram is cut: 100 bytes of it were copied
        script.did(Call.RECVMMSG, server.fileno(), INET, 4, moved=113)

    monitor.watch(script)
    assert monitor.totals() == Totals(connects=1, bytes_sent=213, bytes_received=113)


def test_as_many_datagrams_as_one_call_can_take(monitor: Monitor) -> None:
    """1024 (UIO_MAXIOV): the program's loop reaches the last, of a vector that begins where it reads eight at once."""

    def script(script: Script) -> None:
        left, right = socket.socketpair(UNIX, DATAGRAM)
        right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        left.setsockopt(socket.SOL_SOCKET, 32, 1 << 23)  # SO_SNDBUFFORCE
        Path("/proc/sys/net/unix/max_dgram_qlen").write_text("2048")
        left, right = socket.socketpair(UNIX, DATAGRAM)
        left.setsockopt(socket.SOL_SOCKET, 32, 1 << 23)
        sent = calls.Vector([1] * 1024, mmap.mmap(-1, 1024 * 64), 0).send(left.fileno())
        assert sent == 1024
        script.did(Call.SENDMMSG, left.fileno(), UNIX, 1024, moved=1024)

    monitor.watch(script)
    assert monitor.totals() == Totals(bytes_sent=1024)


def many_messages(sizes: list[int]) -> Callable[[Script], None]:
    """Return a script that sends messages of these sizes, and receives them all with one call."""

    def script(script: Script) -> None:
        Path("/proc/sys/net/unix/max_dgram_qlen").write_text(str(len(sizes)))
        left, right = socket.socketpair(UNIX, DATAGRAM)
        left.setsockopt(socket.SOL_SOCKET, 32, 1 << 24)  # SO_SNDBUFFORCE
        for start in range(0, len(sizes), 1024):
            part = sizes[start : start + 1024]
            assert calls.Vector(part, mmap.mmap(-1, 1024 * 64), 0).send(left.fileno()) == len(part)
            script.did(Call.SENDMMSG, left.fileno(), UNIX, len(part), moved=sum(part))
        vector = calls.Vector(sizes, mmap.mmap(-1, len(sizes) * 64), 0)
        assert vector.receive(right.fileno()) == len(sizes)
        assert vector.lengths() == sizes
        script.did(Call.RECVMMSG, right.fileno(), UNIX, len(sizes), moved=sum(sizes[:4096]))

    return script


@pytest.mark.parametrize("count", [2048, 3000, 4096])
def test_recvmmsg_takes_more_than_1024_messages(count: int, monitor: Monitor) -> None:
    """It has no limit (net/socket.c, do_recvmmsg()). The last message is the largest: each length is read once."""
    sizes = [*[1 + index % 3 for index in range(count - 1)], 7]
    monitor.watch(many_messages(sizes))
    assert monitor.totals() == Totals(bytes_sent=sum(sizes), bytes_received=sum(sizes))


def test_more_messages_than_are_read_are_lost(lossy: Monitor) -> None:
    """The program reads 4096 lengths of a call; the bytes of what is behind them are missing, and counted so."""
    sizes = [*[1] * 4096, 2, 3, 4]
    lossy.watch(many_messages(sizes))
    assert lossy.totals() == Totals(bytes_sent=4105, bytes_received=4096, lost_lengths=3)


def test_sendfile_sends_what_the_kernel_copied(monitor: Monitor, tmp_path: Path) -> None:
    """From a file of 500 bytes, 800 asked for."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 500)

    def script(script: Script) -> None:
        left, _right = pair()
        with path.open("rb") as file:
            script.did(Call.SENDFILE, left.fileno(), UNIX, os.sendfile(left.fileno(), file.fileno(), 0, 800))

    events = monitor.watch(script)
    assert events[0].bytes == 500


def test_splice_counts_in_both_directions(monitor: Monitor) -> None:
    """From a socket into a pipe it receives, from a pipe into a socket it sends."""

    def script(script: Script) -> None:
        left, right = pair()
        reading, writing = os.pipe()
        script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x" * 120))
        script.did(Call.SPLICE, right.fileno(), UNIX, os.splice(right.fileno(), writing, 1000))
        script.did(Call.SPLICE, right.fileno(), UNIX, os.splice(reading, right.fileno(), 1000))

    events = monitor.watch(script)
    assert [event.kind for event in events] == [Kind.SEND, Kind.RECEIVE, Kind.SEND]
    assert monitor.totals() == Totals(bytes_sent=240, bytes_received=120)


def test_a_partial_send_counts_what_fitted(monitor: Monitor) -> None:
    """A non-blocking send into a full buffer: less than asked, then EAGAIN and nothing."""

    def script(script: Script) -> None:
        left, _right = pair()
        left.settimeout(0)
        went = left.send(b"x" * 10_000_000)
        assert 0 < went < 10_000_000
        script.did(Call.SENDTO, left.fileno(), UNIX, went)
        with pytest.raises(BlockingIOError):
            left.send(b"x" * 10_000_000)
        script.did(Call.SENDTO, left.fileno(), UNIX, -errno.EAGAIN)

    first, second = monitor.watch(script)
    assert (first.bytes, second.bytes) == (first.result, 0)
    assert monitor.totals() == Totals(bytes_sent=first.result)


def test_receiving_nothing_is_a_failed_call_without_bytes(monitor: Monitor) -> None:
    """EAGAIN of an empty non-blocking socket."""

    def script(script: Script) -> None:
        _left, right = pair()
        right.settimeout(0)
        with pytest.raises(BlockingIOError):
            right.recv(10)
        script.did(Call.RECVFROM, right.fileno(), UNIX, -errno.EAGAIN)

    (event,) = monitor.watch(script)
    assert event.state == State.FAILED


def test_the_end_of_a_stream_is_a_call_of_no_bytes(monitor: Monitor) -> None:
    """Recv returns 0, which is no failure."""

    def script(script: Script) -> None:
        left, right = pair()
        script.did(Call.CLOSE, left.fileno(), UNIX, 0)
        left.close()
        script.did(Call.RECVFROM, right.fileno(), UNIX, len(right.recv(10)))

    events = monitor.watch(script)
    assert (events[1].state, events[1].bytes) == (State.DONE, 0)


def test_sending_into_a_closed_stream_fails(monitor: Monitor) -> None:
    """EPIPE."""

    def script(script: Script) -> None:
        left, right = pair()
        script.did(Call.CLOSE, right.fileno(), UNIX, 0)
        right.close()
        with pytest.raises(BrokenPipeError):
            left.send(b"x")
        script.did(Call.SENDTO, left.fileno(), UNIX, -errno.EPIPE)

    monitor.watch(script)
    assert monitor.totals() == Totals(closes=1)


def test_an_empty_datagram_is_a_call_of_no_bytes(monitor: Monitor) -> None:
    """UDP can send nothing at all, and it arrives."""

    def script(script: Script) -> None:
        client, server = datagrams()
        address = server.getsockname()
        sent = client.sendto(b"", address)
        script.did(Call.SENDTO, client.fileno(), INET, sent, peer=Peer.of(INET, address))
        script.did(Call.RECVFROM, server.fileno(), INET, len(server.recv(10)))

    monitor.watch(script)
    assert monitor.totals() == Totals()


def test_peeking_counts_what_the_call_returned(monitor: Monitor) -> None:
    """The same bytes twice: the monitor reports calls, and both returned them."""

    def script(script: Script) -> None:
        left, right = pair()
        script.did(Call.SENDTO, left.fileno(), UNIX, left.send(b"x" * 9))
        script.did(Call.RECVFROM, right.fileno(), UNIX, len(right.recv(100, socket.MSG_PEEK)))
        script.did(Call.RECVFROM, right.fileno(), UNIX, len(right.recv(100)))

    monitor.watch(script)
    assert monitor.totals() == Totals(bytes_sent=9, bytes_received=18)


def test_a_cut_datagram_counts_whole_only_with_msg_trunc(monitor: Monitor) -> None:
    """Recv of 4 bytes of a datagram of 50 returns 4; with MSG_TRUNC it returns 50 (recv(2))."""

    def script(script: Script) -> None:
        client, server = datagrams()
        address = server.getsockname()
        for _ in range(2):
            sent = client.sendto(b"x" * 50, address)
            script.did(Call.SENDTO, client.fileno(), INET, sent, peer=Peer.of(INET, address))
        script.did(Call.RECVFROM, server.fileno(), INET, len(server.recv(4)))
        # Python raises when a call returns more than the buffer has, so ask the C library
        buffer = bytearray(4)
        script.did(Call.RECVFROM, server.fileno(), INET, calls.recv(server.fileno(), buffer, socket.MSG_TRUNC))

    events = monitor.watch(script)
    assert [event.result for event in events] == [50, 50, 4, 50]
