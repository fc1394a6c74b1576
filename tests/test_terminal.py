"""Both ends of a command's connection, the guest's in a thread of this process."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kernel_matrix.guest.system.upkeep import terminal as guest
from kernel_matrix.shared.channel.frames import Begin

ROOT = Path(__file__).parents[1]
#: runs a command at the other end of the descriptor that is its first argument
CLIENT = """
import sys
from kernel_matrix.commands.in_guests import terminal
end = int(sys.argv.pop(1))
exit(terminal.run_command(end, end, sys.argv[1:]))
"""
LIMIT = 20.0


@pytest.fixture
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with ExitStack() as stack:
        here, there = socket.socketpair()
        yield stack.enter_context(here), stack.enter_context(there)


def run(
    connection: tuple[socket.socket, socket.socket], *command: str, stdin: bytes = b"", serve: bool = True
) -> subprocess.CompletedProcess[bytes]:
    here, there = connection

    def end() -> None:
        if serve:
            guest.serve(there.fileno(), there.fileno())
        there.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=end)
    thread.start()
    client = [sys.executable, "-c", CLIENT, str(here.fileno()), *command]
    done = subprocess.run(
        client, input=stdin, capture_output=True, check=False, cwd=ROOT, timeout=LIMIT, pass_fds=[here.fileno()]
    )
    here.shutdown(socket.SHUT_RDWR)
    thread.join(LIMIT)
    assert not thread.is_alive()
    return done


@pytest.mark.parametrize(("command", "status"), [("exit 3", 3), ("kill -TERM $$", 143), ("true", 0)])
def test_the_exit_status_is_the_commands(
    connection: tuple[socket.socket, socket.socket], command: str, status: int
) -> None:
    assert run(connection, command).returncode == status


def test_input_of_any_size_comes_back_whole(connection: tuple[socket.socket, socket.socket]) -> None:
    data = os.urandom(3_000_001)
    done = run(connection, "cat; echo end >&2", stdin=data)
    assert (done.stdout == data, done.stderr, done.returncode) == (True, b"end\n", 0)


def test_a_command_that_does_not_read_gets_one_window(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    """A command that does not read its input is sent no more than the window."""
    assert run(connection, "exit 2", stdin=bytes(2_000_000)).returncode == 2


def test_what_a_command_leaves_running_is_not_waited_for(connection: tuple[socket.socket, socket.socket]) -> None:
    done = run(connection, "sleep 1000 & echo $!")
    os.kill(int(done.stdout), 9)
    assert done.returncode == 0


def test_a_program_that_is_not_there_is_said_as_a_shell_would(
    connection: tuple[socket.socket, socket.socket],
) -> None:
    done = run(connection, "no-such-program", "word")
    assert (done.returncode, done.stderr) == (127, b"no-such-program: No such file or directory\n")


def test_output_that_cannot_be_written_is_no_missing_reader(connection: tuple[socket.socket, socket.socket]) -> None:
    """141 is what a shell calls a program whose reader has gone; a full disk has another reason."""
    here, there = connection
    thread = threading.Thread(target=guest.serve, args=(there.fileno(), there.fileno()))
    thread.start()
    client = [sys.executable, "-c", CLIENT, str(here.fileno()), "seq 3"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            client, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, check=False, cwd=ROOT,
            timeout=LIMIT, pass_fds=[here.fileno()],
        )  # fmt: skip
    here.shutdown(socket.SHUT_RDWR)
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert (done.returncode, b"No space left on device" in done.stderr) == (1, True)


def test_a_command_that_cannot_be_given_its_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    served = guest.Served(Begin(("cat",), None, "dumb"))
    write = os.write

    def failing(descriptor: int, data: bytes) -> int:
        if descriptor == served.input:
            raise OSError(errno.EIO if data == b"gone" else errno.EBADF, "")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", failing)
    try:
        served.take(b"word")
        with pytest.raises(OSError, match=rf"^\[Errno {errno.EBADF}\]"):
            served.write()
    finally:
        served.kill()


def test_a_guest_that_goes_ends_the_conversation(connection: tuple[socket.socket, socket.socket]) -> None:
    done = run(connection, "true", serve=False)
    assert b"GuestGone" in done.stderr
