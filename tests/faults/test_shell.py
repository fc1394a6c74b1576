"""A shell in a guest: what is typed reaches it, what it ends with comes back, and its death is reported."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "6.1"
LIMIT = 300.0


def shell_command(results: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "kernel_matrix", "shell", f"--results={results}", *words]


def shell(results: Path, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        shell_command(results, *words), input=data, capture_output=True, check=False, cwd=ROOT, timeout=LIMIT
    )


class Typist:
    """A person at a terminal of 33 rows and 101 columns."""

    def __init__(self, words: list[str]) -> None:
        self.master, terminal = pty.openpty()
        self.resize(33, 101)
        self.before = termios.tcgetattr(terminal)
        self.terminal = terminal
        self.seen = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", "env", "--default-signal=INT", *words],
            stdin=terminal, stdout=terminal, stderr=terminal, cwd=ROOT, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def types(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def sees(self, text: bytes) -> None:
        """Wait for a text, and forget all up to it."""
        end = time.monotonic() + LIMIT
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            if select.select([self.master], [], [], 1.0)[0]:
                self.seen += os.read(self.master, 1 << 16)
        self.seen = self.seen.partition(text)[2]

    def ends(self) -> int:
        status = self.process.wait(LIMIT)
        assert termios.tcgetattr(self.terminal) == self.before, "the terminal is not as it was"
        return status


@pytest.fixture
def typist(tmp_path: Path) -> Iterator[Typist]:
    person = Typist(shell_command(tmp_path, KERNEL))
    yield person
    if person.process.poll() is None:
        person.process.kill()
        person.process.wait()
    os.close(person.master)
    os.close(person.terminal)


def test_a_command_is_a_pipe_with_its_own_exit_status(tmp_path: Path) -> None:
    data = os.urandom(700_000)
    done = shell(tmp_path, KERNEL, "cat; pwd >&2; ls build/*.o >&2; exit 7", data=data)
    assert done.returncode == 7, done.stderr
    assert done.stdout == data
    assert done.stderr.startswith(b"/harness\nbuild/kprobe_execve.bpf.o\n")


def test_several_words_are_a_program_and_its_arguments(tmp_path: Path) -> None:
    done = shell(tmp_path, f"{KERNEL}+lockdown_integrity", "cat", "/sys/kernel/security/lockdown", "/no such file")
    assert (done.returncode, done.stdout) == (1, b"none [integrity] confidentiality\n")
    assert b"'/no such file': No such file" in done.stderr


def test_a_carried_folder_is_there_with_its_modes(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "tool").write_text("#!/bin/sh\necho ran $1\n")
    (folder / "tool").chmod(0o751)
    done = shell(tmp_path, "--carry", str(folder), KERNEL, "/carried/tool well; stat -c %a%U /carried/tool")
    assert (done.returncode, done.stdout) == (0, b"ran well\n751root\n"), done.stderr


def test_a_panic_ends_a_shell_with_its_console(tmp_path: Path) -> None:
    done = shell(tmp_path, KERNEL, "echo c > /proc/sysrq-trigger")
    assert done.returncode == 3
    first, *console = done.stderr.decode().splitlines()
    assert "the kernel panicked" in first
    assert str(tmp_path) in first
    assert any("sysrq_handle_crash" in line for line in console), done.stderr


def test_a_terminal_is_one(typist: Typist) -> None:
    """Its size, a new size, Ctrl-C for what runs there, and the status of the shell."""
    typist.sees(b"# ")
    typist.types(b"stty size\r")
    typist.sees(b"33 101")
    typist.resize(20, 70)
    typist.types(b"until [ \"$(stty size)\" = '20 70' ]; do :; done; echo re''sized\r")
    typist.sees(b"resized")
    typist.types(b"echo go''es; cat; echo sta''tus $?\r")
    typist.sees(b"goes")
    # what is typed once, and is there a second time, has been read by cat: Ctrl-C is not for the shell before it
    typist.types(b"heard\r")
    typist.sees(b"heard")
    typist.sees(b"heard")
    typist.types(b"\x03")
    typist.sees(b"^C")
    # what is typed before the shell has the terminal again may go to the dying cat: n_tty_read() takes what is there
    # before it looks at signals
    typist.sees(b"# ")
    typist.types(b"exit 9\r")
    assert typist.ends() == 9


def test_a_guest_that_is_killed_gives_the_terminal_back(typist: Typist, tmp_path: Path) -> None:
    typist.sees(b"# ")
    folder = next((tmp_path / "shell" / "latest").glob("guests-*"))
    started = json.loads(next(folder.glob("*.started.json")).read_bytes())
    os.killpg(started["group"], signal.SIGKILL)
    assert typist.ends() == 3
    typist.sees(b"QEMU ended")


def test_ctrl_c_before_the_guest_is_there_ends_it(tmp_path: Path) -> None:
    person = Typist(shell_command(tmp_path, "--cold", KERNEL))
    console = tmp_path / "shell" / "latest" / "console" / f"{KERNEL}.log"
    end = time.monotonic() + LIMIT
    while not console.exists() and time.monotonic() < end:
        select.select([], [], [], 0.05)
    person.types(b"\x03")
    assert person.ends() == 2


def test_a_debugger_connects_to_the_kernel(tmp_path: Path) -> None:
    """With the protocol's question for the reason of the last stop; connecting stops the guest."""
    command = shell_command(tmp_path, "--gdb", KERNEL, "cat")
    # whatever fails here, the end of its input ends the shell
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        assert line.startswith("debug its kernel: gdb /"), line
        with socket.socket(socket.AF_UNIX) as debugger:
            debugger.settimeout(LIMIT)
            debugger.connect(line.rpartition("target remote ")[2].strip().rstrip("'"))
            debugger.sendall(b"+$?#3f")
            reply = b""
            while b"#" not in reply:
                reply += debugger.recv(1 << 10)
            debugger.sendall(b"+$D#44")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(LIMIT) == 0
    assert reply.lstrip(b"+").startswith(b"$T"), reply


#: prints how many compiled modules of the image are looked up by their source's time, which the image sets to 0
COUNT = """
import glob
files = glob.glob("/usr/lib/python3*/**/*.pyc", recursive=True)
timed = [name for name in files if not int.from_bytes(open(name, "rb").read(8)[4:], "little")]
print(len(files) > 500, len(timed))
"""


def test_no_module_of_a_guest_is_compiled_again(tmp_path: Path) -> None:
    """A .pyc with a time in it (PEP 552) is stale there, and each import would compile its source, emulated."""
    assert shell(tmp_path, KERNEL, "python3", "-c", COUNT).stdout == b"True 0\n"
