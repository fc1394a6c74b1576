"""The relay, with a process of the host in the guest's place."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import execnet
import pytest

from kernel_matrix.relay import client
from kernel_matrix.relay.job import Job
from kernel_matrix.relay.serve import Over, Relay
from kernel_matrix.shared import wire
from kernel_matrix.vm import slots
from kernel_matrix.vm.ending import End, Ending
from tests.fake_guest import FAKE_VNG, LIMIT, job_below


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_below(tmp_path)


@pytest.fixture
def group() -> Iterator[execnet.Group]:
    group = execnet.Group()
    yield group
    group.terminate(timeout=5)


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if condition():
            return True
        os.sched_yield()
    return False


def relay_command(job: Job, folder: Path) -> list[str]:
    wire.write(folder / "job.json", job)
    return client.command(folder / "job.json", folder / "ending.json")


def ending(folder: Path) -> Ending:
    path = folder / "ending.json"
    assert until(path.exists)
    return wire.decode(path.read_bytes(), Ending)


def converse(job: Job, folder: Path) -> Ending:
    """Start a relay as xdist does, send the first work, and return how the guest ended."""
    with subprocess.Popen(relay_command(job, folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as relay:
        assert relay.stdin is not None
        assert relay.stdout is not None
        relay.stdin.write(b"'pass'\n")
        relay.stdin.flush()
        assert relay.stdout.read(1) == b"1"
        relay.wait(timeout=LIMIT)
    return ending(folder)


def alive(pattern: str) -> bool:
    status = subprocess.run(["pgrep", "-f", pattern], stdout=subprocess.DEVNULL, check=False).returncode
    # 1: there is none; above: pgrep itself failed
    assert status in {0, 1}
    return status == 0


def test_execnet_talks_through_it(
    job: Job, tmp_path: Path, group: execnet.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_FAKE", "well")
    gateway = group.makegateway(f"popen//python={shlex.join(relay_command(job, tmp_path))}")
    channel = gateway.remote_exec(
        "import os; channel.send((os.environ['HARNESS_KERNEL'], os.environ['HARNESS_SPEED']))"
    )
    assert channel.receive(timeout=LIMIT) == ("fake", "2.00")
    big = os.urandom(3_000_000)
    echo = gateway.remote_exec("channel.send(channel.receive())")
    echo.send(big)
    assert echo.receive(timeout=LIMIT) == big
    gateway.exit()
    # execnet kills what has not ended by then, and a killed relay leaves no ending
    group.terminate(timeout=LIMIT)
    end = ending(tmp_path)
    assert (end.end, end.release) == (End.RELEASED, "6.0.0-fake")
    # what is killed takes a moment to die
    assert until(lambda: not alive(f"{FAKE_VNG}.*{tmp_path}"))


@pytest.mark.parametrize(
    ("mode", "end", "reason"),
    [
        ("dies", End.NO_BOOT, "QEMU ended before the guest was ready"),
        ("raises", End.NO_BOOT, "virtme-ng failed: FileNotFoundError: [Errno 2] No such file or directory: 'file'"),
        ("mute", End.NO_BOOT, "not ready after 1 s"),
        ("silent", End.SILENT, "no word from the guest for 1 s"),
        ("vanishes", End.EXITED, "QEMU ended"),
        ("panics", End.PANIC, "the kernel panicked: BUG: kernel NULL pointer dereference, address: 0"),
    ],
)
def test_every_way_a_guest_can_end_has_its_name(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, end: End, reason: str
) -> None:
    monkeypatch.setenv("HARNESS_FAKE", mode)
    result = converse(replace(job, silence_timeout=1, boot_timeout=1 if mode == "mute" else LIMIT), tmp_path)
    assert (result.end, result.reason) == (end, reason)
    assert "Linux version 6.0.0-fake" in result.console
    # what is killed takes a moment to die
    assert until(lambda: not alive(f"{FAKE_VNG}.*{tmp_path}"))


def test_what_a_silent_guest_answers_is_not_how_it_ended(job: Job, tmp_path: Path) -> None:
    """The NMI with which its kernel is asked panics it."""
    job.console.parent.mkdir()
    job.console.write_text("begins\n")
    relay = Relay(job, tmp_path, tmp_path / "ending.json")
    relay.release = "6.1"
    relay.end_console()
    with job.console.open("a") as console:
        console.write("Kernel panic - not syncing: NMI: Not continuing\n")
    result = relay.ending(Over(End.SILENT, "no word", "asked"))
    assert (result.end, result.reason, result.doing, result.console) == (End.SILENT, "no word", "asked", "begins\n")


@pytest.mark.parametrize("victim", ["controller", "relay"])
def test_no_guest_outlives_its_relay_or_the_controller(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    monkeypatch.setenv("HARNESS_FAKE", "silent")
    with subprocess.Popen(relay_command(job, tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as relay:
        assert relay.stdin is not None
        assert relay.stdout is not None
        relay.stdin.write(b"'pass'\n")
        relay.stdin.flush()
        assert relay.stdout.read(1) == b"1"
        guest = f"{FAKE_VNG}.*{tmp_path}"
        assert until(lambda: alive(guest))
        if victim == "controller":
            relay.stdin.close()
        else:
            relay.send_signal(signal.SIGKILL)
        assert until(lambda: not alive(guest))


def test_a_guest_waits_for_a_free_slot(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_FAKE", "vanishes")
    held = slots.try_take(job.slots)
    assert held is not None
    with subprocess.Popen(relay_command(job, tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as relay:
        assert relay.stdin is not None
        assert relay.stdout is not None
        relay.stdin.write(b"'pass'\n")
        relay.stdin.flush()
        assert relay.stdout.read(1) == b"1"  # the controller does not wait
        assert not job.console.exists()
        os.close(held)
        relay.wait(timeout=LIMIT)
    assert ending(tmp_path).end is End.EXITED


def relay_of(job: Job, folder: Path, process: object) -> Relay:
    """A relay whose guest has closed its channel."""
    relay = Relay(job, folder, folder / "ending.json")
    here, there = socket.socketpair()
    there.close()
    relay._channel, relay._process = here, process  # type: ignore[assignment]
    return relay


@pytest.mark.parametrize(
    ("ends", "raised"),
    [(subprocess.TimeoutExpired("qemu", 5), Over), (ChildProcessError("no child"), ChildProcessError)],
)
def test_of_a_qemu_that_goes_only_its_slowness_is_expected(
    job: Job, tmp_path: Path, ends: Exception, raised: type[Exception]
) -> None:
    class Process:
        def wait(self, **_: float) -> None:
            raise ends

    relay = relay_of(job, tmp_path, Process())
    with pytest.raises(raised):
        relay._receive()
    assert relay._channel is not None
    relay._channel.close()


def test_a_console_that_cannot_be_read_is_an_error(job: Job, tmp_path: Path) -> None:
    """Whether the kernel panicked is not known then."""
    relay = Relay(replace(job, console=tmp_path), tmp_path, tmp_path / "ending.json")
    with pytest.raises(IsADirectoryError):
        relay.ending(Over(End.EXITED, "QEMU ended"))
