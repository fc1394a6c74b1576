"""A command of the user's own: how it ends, what it says, what its cells are called."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.guest.pytest.items import command
from kernel_matrix.guest.pytest.items.command import CommandFailed
from kernel_matrix.session.display.output import Outputs
from kernel_matrix.shared.outcomes import expect


def failure(folder: Path, *words: str, timeout: float | None = None) -> list[str]:
    with pytest.raises(CommandFailed) as caught:
        command.run(words, folder, timeout, lambda _: None)
    return str(caught.value).splitlines()


def test_a_successful_command_runs_in_its_folder(tmp_path: Path) -> None:
    """It returns its whole output."""
    heard: list[bytes] = []
    command.run(["pwd; seq 100000; echo last >&2"], tmp_path, None, heard.append)
    lines = b"".join(heard).decode().splitlines()
    assert (lines[0], len(lines), lines[-1]) == (str(tmp_path), 100_002, "last")


def test_an_error_has_the_exit_status_then_the_last_output(tmp_path: Path) -> None:
    first, *rest = failure(tmp_path, "seq 100; exit 3")
    assert first == "exit status 3"
    assert rest == [str(number) for number in range(61, 101)]


def test_a_signal_has_its_name(tmp_path: Path) -> None:
    assert failure(tmp_path, "kill -SEGV $$") == ["killed by SIGSEGV"]


def runs(pid: str) -> bool:
    try:
        stat = Path("/proc", pid, "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    # a zombie has ended; its name may hold a bracket
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_a_command_ends_at_its_time_with_all_it_has_started(tmp_path: Path) -> None:
    first, pid = failure(tmp_path, "sleep 1000 & echo $!; wait", timeout=0.3)
    assert first == "no end within 0.3 s"
    end = time.monotonic() + 20
    # what is killed takes a moment to die
    while runs(pid):
        assert time.monotonic() < end
        os.sched_yield()


def test_what_is_left_running_is_not_waited_for(tmp_path: Path) -> None:
    heard: list[bytes] = []
    command.run(["sleep 1000 & echo $!"], tmp_path, None, heard.append)
    os.kill(int(b"".join(heard)), 9)


def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    assert failure(tmp_path, "no-such-program", "word") == ["no-such-program: No such file or directory"]


@given(st.lists(st.text(), min_size=1), st.sampled_from(["6.1", "6.1+lockdown_integrity"]))
def test_every_kernel_has_the_same_name_for_a_command(words: list[str], kernel: str) -> None:
    name = command.name(words)
    assert expect.split_nodeid(f"[{kernel}]{name}", kernel) == name
    assert len(name.splitlines()) == 1


def test_output_is_shown_by_the_line_and_kept_as_it_is(tmp_path: Path) -> None:
    shown: list[str] = []
    outputs = Outputs(tmp_path / "output", shown.append)
    outputs.receive("6.1", b"one\ntw")
    outputs.receive("7.3", b"other\n")
    outputs.receive("6.1", b"o\r\n\xffthree")
    assert shown == ["6.1: one", "7.3: other", "6.1: two"]
    outputs.end("6.1")
    outputs.end("7.3")
    assert shown[3:] == ["6.1: \N{REPLACEMENT CHARACTER}three"]
    assert (tmp_path / "output" / "6.1.log").read_bytes() == b"one\ntwo\r\n\xffthree"
