"""Real clients and servers: what the monitor reports of them is what they, or the kernel, say themselves."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from kernel_matrix.guest.pytest.marks import with_loaders
from suites.sockets.conftest import Kind, Monitor, NetEvent, State
from suites.sockets.programs import Watched, counters, lines, measured

# what runs is the same whoever has loaded it
pytestmark = with_loaders("libbpf")

_NGINX = """
daemon off; master_process off; user root; pid {0}/pid; error_log {0}/errors;
events {{}}
http {{
    log_format account '$request_length $bytes_sent';
    access_log {0}/account account;
    client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;
    uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi;
    sendfile on;
    server {{ listen 127.0.0.1:8080; root {0}; }}
}}
"""
#: what curl says of each transfer: what it has sent, and received
_CURL = "%{size_request} %{size_upload} %{size_header} %{size_download}\\n"


def test_curl_and_nginx_agree_with_the_monitor(monitor: Monitor, tmp_path: Path) -> None:
    """A small file, one of a megabyte, and one that is not there, through one connection.

    Both keep an account: curl by --write-out, nginx in its log, which a request enters before its connection closes.
    """

    def measurement(watched: Watched, folder: Path) -> None:
        base = "http://127.0.0.1:8080"
        (folder / "nginx.conf").write_text(_NGINX.format(folder))
        (folder / "small").write_bytes(b"x" * 100)
        (folder / "large").write_bytes(b"x" * (1 << 20))
        server = ("nginx", "-e", f"{folder}/errors", "-c", f"{folder}/nginx.conf")
        with watched.serving(8080, *server, folder=folder) as nginx:
            urls = [word for name in ("small", "large", "none") for word in ("-o", "/dev/null", f"{base}/{name}")]
            curl = watched.run("curl", "--silent", "--write-out", _CURL, *urls, folder=folder)
            watched.wait(lambda: len(watched.of(nginx, Kind.CLOSE)) == 1, "nginx closes the connection")
            requests, uploads, headers, downloads = map(sum, zip(*lines((folder / "out").read_text()), strict=True))
            lengths, sent = map(sum, zip(*lines((folder / "account").read_text()), strict=True))

            assert (watched.sent(curl), watched.received(curl)) == (requests + uploads, headers + downloads)
            assert (watched.received(nginx), watched.sent(nginx)) == (lengths, sent)
            assert sent == watched.received(curl) > (1 << 20) + 100
            assert [event.state for event in watched.of(curl, Kind.CONNECT)] == [State.IN_PROGRESS]
            assert len(watched.of(nginx, Kind.ACCEPT)) == 1
            assert watched.add_up()

    measured(monitor, tmp_path, measurement)


def _info(port: int) -> tuple[bytes, int]:
    """Ask redis for its account; return what it answers, and how much was asked."""
    question = b"INFO stats\r\n"
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(question)
        answer = sock.recv(1 << 16)
        size = int(answer[1 : answer.index(b"\r\n")])
        # "$SIZE", the text, each with its end of line
        while len(answer) < answer.index(b"\r\n") + 2 + size + 2:
            answer += sock.recv(1 << 16)
    return answer, len(question)


def test_redis_agrees_with_the_monitor(monitor: Monitor, tmp_path: Path) -> None:
    """Five clients, two hundred commands, four of them at once; then redis is asked what went in and out.

    The question is in its account, the answer is not yet.
    """

    def measurement(watched: Watched, folder: Path) -> None:
        options = ("--port", "6399", "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
        load = ("-n", "100", "-c", "5", "-P", "4", "-d", "100", "-t", "set,get", "-q")
        with watched.serving(6399, "redis-server", *options, folder=folder) as redis:
            client = watched.run("redis-benchmark", "-h", "127.0.0.1", "-p", "6399", *load, folder=folder)
            answer, asked = _info(6399)
            # an answer may be here before the call that sent it ends
            watched.wait(
                lambda: len(watched.of(redis, Kind.CLOSE)) == len(watched.of(redis, Kind.ACCEPT)),
                "redis closes connections",
            )
            account = {name: int(value) for name, value in re.findall(r"(\w+):(\d+)\r", answer.decode())}

            assert watched.received(redis) == account["total_net_input_bytes"] == watched.sent(client) + asked
            assert watched.sent(redis) - len(answer) == account["total_net_output_bytes"] == watched.received(client)
            assert len(watched.of(redis, Kind.ACCEPT)) == account["total_connections_received"]
            # a connect that asks how one before has ended begins no other
            begun = [event for event in watched.of(client, Kind.CONNECT) if event.state == State.IN_PROGRESS]
            assert len(begun) == account["total_connections_received"] - 1
            assert watched.add_up()

    measured(monitor, tmp_path, measurement)


def test_a_dns_exchange_agrees_with_the_kernel(monitor: Monitor, tmp_path: Path) -> None:
    """The namespace has no other traffic of IPv4: its bytes are those of the datagrams, without two headers each."""

    def measurement(watched: Watched, folder: Path) -> None:
        options = (
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--pid-file=",
            "--no-resolv",
            "--no-hosts",
        )
        where = ("--port=5353", "--listen-address=127.0.0.1", "--bind-interfaces", "--address=/example.test/192.0.2.7")
        before = counters("snmp", "Udp"), counters("netstat", "IpExt")
        with watched.serving(5353, "dnsmasq", *options, *where, folder=folder, over="udp") as dnsmasq:
            drill = watched.run("drill", "-p", "5353", "a.example.test", "@127.0.0.1", folder=folder)
            watched.wait(lambda: watched.sent(dnsmasq) > 0, "the end of the call that sent the answer")
            printed = (folder / "out").read_text()
            datagrams, octets = counters("snmp", "Udp") - before[0], counters("netstat", "IpExt") - before[1]

            assert "192.0.2.7" in printed
            assert (datagrams["OutDatagrams"], datagrams["InDatagrams"]) == (2, 2)
            # 20 bytes of IPv4 and 8 of UDP
            assert watched.sent(drill) + watched.sent(dnsmasq) == octets["OutOctets"] - 2 * 28
            assert watched.received(drill) + watched.received(dnsmasq) == octets["InOctets"] - 2 * 28
            assert watched.received(drill) == int(re.findall(r"MSG SIZE +rcvd: (\d+)", printed)[0])
            assert watched.add_up()

    measured(monitor, tmp_path, measurement)


#: what each stream of iperf3 sends first, and is in no account (COOKIE_SIZE of its iperf.h); what it moves at once
_COOKIE, _BLOCK = 37, 128 << 10


def _accounts_for(account: int, moved: Sequence[NetEvent]) -> bool:
    """Whether an account of iperf3 is of all these calls, or of all but those for the block that was under way.

    At the end iperf3 cancels its threads wherever they are (PTHREAD_CANCEL_ASYNCHRONOUS, iperf_client_worker_run() and
    iperf_server_worker_run()): also between the call that has moved a block and its account.
    """
    sums = list(accumulate(event.bytes for event in moved))
    return account in sums and sums[-1] - account <= _BLOCK


def test_the_volume_of_iperf3_agrees_with_the_monitor(monitor: Monitor, tmp_path: Path) -> None:
    """Two streams, by a thread each: 4 MB, by the descriptor that each end says the stream has."""

    def measurement(watched: Watched, folder: Path) -> None:
        account = folder / "account"
        account.mkdir()
        server = ("iperf3", "--server", "--one-off", "--json", "--port", "5201", "--bind", "127.0.0.1")
        client = ("iperf3", "--client", "127.0.0.1", "--json", "--parallel", "2", "--bytes", "4M")
        with watched.serving(5201, *server, folder=folder) as receiver:
            sender = watched.run(*client, folder=account)
            watched.wait(lambda: receiver.poll() is not None, "the end of the server")
            sent, received = (json.loads(path.read_text()) for path in (account / "out", folder / "server"))

            for end, program, kind in ((sent, sender, Kind.SEND), (received, receiver, Kind.RECEIVE)):
                streams = [stream["sender" if program is sender else "receiver"] for stream in end["end"]["streams"]]
                assert len(streams) == 2
                for stream in streams:
                    moved = watched.of(program, kind, fd=stream["socket"])
                    assert _accounts_for(stream["bytes"] + _COOKIE, moved), [event.bytes for event in moved]
            # it ends when so much is in its account
            assert sent["end"]["sum_sent"]["bytes"] >= 4 << 20
            assert watched.add_up()

    measured(monitor, tmp_path, measurement)
