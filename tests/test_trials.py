"""Trials of objects in a guest's pytest: a child for each, and what its parent makes of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import leaks
from kernel_matrix.guest.pytest import plugin, trials
from kernel_matrix.shared.channel import frames
from kernel_matrix.shared.outcomes import mutants
from kernel_matrix.shared.outcomes.mutants import Begin, Result, Trial

pytest_plugins = ["pytester"]

#: runs trials in a pytest with these two files and returns their results
Try = Callable[..., list[Result]]

_FIRST = """
import os, signal
from pathlib import Path
from kernel_matrix.guest.bpf.step_error import StepError

OBJECT = Path(os.environ["KERNEL_MATRIX_ROOT"], "build", "p.bpf.o")

def test_speed():
    assert OBJECT.read_text() != f"speed {os.environ['HARNESS_SPEED']}"

def test_object():
    content = OBJECT.read_text()
    if content == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    if content == "hangs":
        signal.sigwait({signal.SIGUSR2})
    if content == "waits":
        raise TimeoutError("5 packets counted: not within 5 s")
    if content == "refused":
        raise StepError(13, "load", "p", "libbpf: load failed\\nR1 invalid mem access\\nprocessed 7 insns")
    assert content == "right"
"""
_SECOND = """
def test_passes():
    pass

def test_content():
    import test_first
    assert test_first.OBJECT.read_text() in {"right", "kills", "hangs", "waits", "refused"}
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Try:
    """Return what runs trials of objects with these contents."""
    monkeypatch.setenv("KERNEL_MATRIX_ROOT", str(tmp_path))
    monkeypatch.setenv("HARNESS_SPEED", "20")
    monkeypatch.setattr(frames, "BEAT", 0.05)
    compiled = tmp_path / "build" / "p.bpf.o"
    compiled.parent.mkdir()
    compiled.write_text("compiled")
    pytester.makepyfile(test_first=_FIRST, test_second=_SECOND)

    def tried(*asked: tuple[bytes, Trial], left: frozenset[str] = frozenset()) -> list[Result]:
        monkeypatch.setattr(leaks, "present", frozenset)
        monkeypatch.setattr(leaks, "wait_for_release", lambda _: left)
        to_guest, from_guest = os.pipe(), os.pipe()
        sent = b"".join(frames.frame(mutants.OBJECT, data) + trial.encoded() for data, trial in asked)
        os.write(to_guest[1], sent)
        os.close(to_guest[1])
        received = bytearray()
        reader = threading.Thread(target=lambda: received.extend(_all(from_guest[0])))
        plugin = trials.TrialsPlugin(trials.Port(to_guest[0], from_guest[1]))
        # the child is a fork of a process with one thread, as in a guest; what is sent is little
        pytester.runpytest_inprocess("-p", "no:cacheprovider", plugins=[plugin])
        os.close(from_guest[1])
        reader.start()
        reader.join()
        assert compiled.read_text() == "compiled"
        answer = b"1" + frames.ANSWER
        assert received.startswith(answer)
        stream = list(frames.Reader().feed(bytes(received[len(answer) :])))
        return [mutants.result_of(payload) for kind, payload in stream if kind == mutants.RESULT]

    return tried


def _all(descriptor: int) -> bytes:
    data = bytearray()
    while chunk := os.read(descriptor, 1 << 16):
        data += chunk
    os.close(descriptor)
    return bytes(data)


TRIAL = Trial("p", (".",), (), 30.0)


def test_an_object_that_all_tests_pass_with(run: Try) -> None:
    (result,) = run((b"right", TRIAL))
    assert replace(result, seconds=0.0) == Result(tests=4)


def test_the_first_failure_ends_a_trial(run: Try) -> None:
    (result,) = run((b"wrong", TRIAL))
    assert [test for test, _ in result.failed] == ["test_first.py::test_object"]
    assert "AssertionError" in result.failed[0][1]
    assert (result.tests, result.late, result.spoiled, result.refused) == (2, False, "", "")


def test_a_whole_trial_goes_on_behind_failures(run: Try) -> None:
    (result,) = run((b"wrong", replace(TRIAL, stops=False)))
    assert [test for test, _ in result.failed] == ["test_first.py::test_object", "test_second.py::test_content"]
    assert result.tests == 4


def test_each_object_is_tried_as_if_it_were_the_first(run: Try) -> None:
    results = run((b"wrong", TRIAL), (b"right", TRIAL), (b"kills", TRIAL), (b"right", TRIAL))
    assert [bool(result.failed) for result in results] == [True, False, True, False]


def test_the_test_that_killed_before_comes_first(run: Try) -> None:
    (result,) = run((b"wrong", replace(TRIAL, first=("test_second.py::test_content",))))
    assert [test for test, _ in result.failed] == ["test_second.py::test_content"]
    assert result.tests == 1


def test_only_the_named_tests_are_run(run: Try) -> None:
    (result,) = run((b"wrong", replace(TRIAL, tests=("test_second.py::test_passes",))))
    assert (result.failed, result.tests) == ((), 1)


def test_each_child_begins_behind_the_kernels_log(run: Try, pytester: pytest.Pytester) -> None:
    """All children share their place in the log, and none knows the number that is expected there."""
    pytester.makeconftest(f"""
import pytest

class Guest:
    skipped = 0

    def skip_log(self):
        self.skipped += 1

GUEST = Guest()

def pytest_configure(config):
    config.pluginmanager.register(GUEST, {plugin.NAME!r})

def pytest_runtest_setup(item):
    assert GUEST.skipped == 1
""")
    first, second = run((b"right", TRIAL), (b"right", TRIAL))
    assert (first.failed, second.failed) == ((), ())


def test_only_the_named_files_are_run(run: Try) -> None:
    (result,) = run((b"right", replace(TRIAL, tests=("test_second.py",))))
    assert result.tests == 2


def test_a_refused_object_is_not_a_failed_test(run: Try) -> None:
    (result,) = run((b"refused", TRIAL))
    assert result.refused == "load: EACCES: R1 invalid mem access"


def test_a_child_that_dies_names_its_test(run: Try) -> None:
    (result,) = run((b"kills", TRIAL))
    assert result.failed == (("test_first.py::test_object", "the test process ended with -9"),)
    assert result.spoiled


def test_a_child_that_hangs_is_ended(run: Try) -> None:
    (result,) = run((b"hangs", replace(TRIAL, seconds=2.0)))
    assert [test for test, _ in result.failed] == ["test_first.py::test_object"]
    assert "no end within" in result.failed[0][1]
    assert (result.late, bool(result.spoiled)) == (True, True)


def test_a_limit_that_decides_is_told_apart(run: Try) -> None:
    (result,) = run((b"waits", TRIAL))
    assert (result.late, result.spoiled) == (True, "")


def test_limits_of_a_trial_are_part_of_a_runs(run: Try) -> None:
    (whole,) = run((b"speed 20.0", TRIAL))
    (part,) = run((b"speed 4.0", replace(TRIAL, limits=0.2)))
    assert [test for test, _ in (*whole.failed, *part.failed)] == ["test_first.py::test_speed"] * 2


def test_a_guest_with_leftovers_is_spoiled(run: Try) -> None:
    (result,) = run((b"right", TRIAL), left=frozenset({"prog 7"}))
    assert result.spoiled == "left in the kernel: prog 7"


def test_a_trial_without_tests_says_nothing(run: Try) -> None:
    (result,) = run((b"right", replace(TRIAL, tests=("test_third.py",))))
    assert result.invalid == "no test is collected from test_third.py"


def test_a_file_that_is_not_collected_says_nothing(run: Try, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_third="import nothing_of_this_name")
    (result,) = run((b"right", TRIAL))
    assert result.invalid == "its tests were not collected"


def test_messages_are_read_as_they_were_sent() -> None:
    begin = Begin(("-q", "tests"), {"input": "{}", "channel": None})
    data = begin.encoded()
    size = mutants.payload_size(data[: mutants.HEADER])
    assert mutants.begin_of(data[mutants.HEADER :]) == begin
    assert len(data) == mutants.HEADER + size
    trial = Trial("p", ("a", "b"), ("c",), 1.5, stops=False, limits=0.2)
    ((kind, payload),) = frames.Reader().feed(trial.encoded())
    assert (kind, mutants.trial_of(payload)) == (mutants.TRIAL, trial)
    result = Result((("t", "w"),), "r", 3, 1.5, "i", "s", late=True)
    assert mutants.result_of(result.payload()) == result


def test_a_begin_is_the_end_of_a_preamble() -> None:
    from kernel_matrix.relay import preamble

    begin = Begin(("x",), {})
    sent = b"'bootstrap'\n" + begin.encoded()
    assert preamble.end(sent + b"more") == len(sent)
    assert preamble.answered(b"1" + frames.ANSWER)
