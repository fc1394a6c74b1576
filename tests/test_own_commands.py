"""The table's commands as tests: collected from the table's file, run, judged, and nothing of them left."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import leaks
from kernel_matrix.guest.bpf.foreign import environment
from kernel_matrix.guest.pytest.items import own_commands
from kernel_matrix.guest.system import netns
from kernel_matrix.guest.system.upkeep import child
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.project import Command
from tests.test_command import runs

pytest_plugins = ["pytester"]

#: commands as JSON, and words of pytest's -> the reports of their calls
Reports = Callable[..., list[pytest.TestReport]]

#: takes the place of a guest
CONFTEST = """
import contextlib, json, os
from pathlib import Path

from kernel_matrix.guest.pytest import marks
from kernel_matrix.guest.pytest.items import objects, own_commands
from kernel_matrix.shared.project import Command


class Namespace:
    entered = contextlib.nullcontext


def pytest_addoption(parser):
    parser.addoption("--test-timeout", type=float, dest="test_timeout")


def pytest_configure(config):
    config.addinivalue_line("markers", "timeout")
    config.addinivalue_line("markers", "known_issue")
    config.stash[objects.KERNELS] = ("6.1",)
    config.stash[own_commands.COMMANDS] = tuple(Command.of_json(entry) for entry in json.loads(os.environ["COMMANDS"]))
    own_commands.HOME = Path.cwd()
    own_commands.environment.show_configuration = lambda: None
    own_commands.environment.bpffs = contextlib.nullcontext
    own_commands.netns.namespace = lambda ipv6: contextlib.nullcontext(Namespace())
    own_commands.leaks.present = lambda: frozenset()
    own_commands.leaks.wait_for_release = lambda before: frozenset(filter(None, [os.environ.get("LEFT")]))
    config.pluginmanager.register(own_commands)
"""


@pytest.fixture
def reports(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Reports:
    """Return a function that runs commands, given as JSON; it returns the reports of their calls."""
    pytester.makeconftest(CONFTEST)
    (pytester.path / "kernel-matrix.toml").touch()
    # in one process with all other tests: what the conftest replaces is set back
    for module in (own_commands, environment, netns, leaks):
        for name, value in list(vars(module).items()):
            monkeypatch.setattr(module, name, value)

    def do(commands: str, *words: str) -> list[pytest.TestReport]:
        monkeypatch.setenv("COMMANDS", commands)
        result = pytester.inline_run("-p", "no:hypothesispytest", *(words or ("kernel-matrix.toml",)))
        return [report for report in result.getreports("pytest_runtest_logreport") if report.when == "call"]

    return do


def test_each_command_is_a_cell_named_by_its_line(reports: Reports) -> None:
    """Whatever is in the line: brackets, colons, quotes, line feeds."""
    lines = ["true", 'test "a::b[6.1]" != x', "true\\n"]
    done = reports('[{"run": "true"}, {"run": "test \\"a::b[6.1]\\" != x"}, {"run": "true\\n"}]')
    assert [report.nodeid for report in done] == [f"kernel-matrix.toml::command[6.1-{line}]" for line in lines]
    assert {report.outcome for report in done} == {"passed"}
    # and each is found again by its name
    for report in done:
        assert [
            again.nodeid
            for again in reports(
                '[{"run": "true"}, {"run": "test \\"a::b[6.1]\\" != x"}, {"run": "true\\n"}]', report.nodeid
            )
        ] == [report.nodeid]


def test_a_command_that_is_known_to_fail_is_marked_where_it_does() -> None:
    known = Command("false", known_issue="a report", known_issue_kernels=("6.1",))
    assert (known.fails_on("6.1"), known.fails_on("7.3")) == (True, False)
    assert Command("false", known_issue="a report").fails_on("7.3")
    assert not Command("false").fails_on("6.1")
    assert Command.of_json(json.loads(json.dumps(asdict(known)))) == known


def test_a_known_failure_of_a_command_has_the_mark_for_it(reports: Reports) -> None:
    """What the mark does, tests of the marks show."""
    line = '{"run": "exit 3", "known_issue": "a report", "known_issue_kernels": ["%s"]}'
    (marked,) = reports(f"[{line % '6.1'}]")
    (elsewhere,) = reports(f"[{line % '7.3'}]")
    assert ("known_issue" in marked.keywords, "known_issue" in elsewhere.keywords) == (True, False)


def test_a_cell_of_a_command_can_be_run_again() -> None:
    test = expect.split_nodeid("kernel-matrix.toml::command[6.1-bin/x --self-test]", "6.1")
    assert test == "kernel-matrix.toml::command[bin/x --self-test]"
    assert expect.rerun(test, "6.1").endswith('"kernel-matrix.toml::command[6.1-bin/x --self-test]"')


def test_the_exit_status_decides_and_the_output_is_shown(reports: Reports) -> None:
    good, bad, killed = reports('[{"run": "echo a"}, {"run": "echo b; exit 3"}, {"run": "kill -SEGV $$"}]')
    assert good.passed
    assert (bad.outcome, bad.longreprtext) == ("failed", "exit status 3\nb")
    assert (killed.outcome, killed.longreprtext) == ("failed", "killed by SIGSEGV")


def test_a_command_has_its_own_limit(reports: Reports) -> None:
    """And the command line's comes first."""
    (late,) = reports('[{"run": "sleep 1000", "timeout": 0.2}]')
    assert late.longreprtext == "no end within 0.2 s"
    (late,) = reports('[{"run": "sleep 1000"}]', "--test-timeout=0.3", "kernel-matrix.toml")
    assert late.longreprtext == "no end within 0.3 s"
    (good,) = reports('[{"run": "sleep 0.3", "timeout": 0.2}]', "--test-timeout=0", "kernel-matrix.toml")
    assert good.passed


def test_what_is_left_in_the_kernel_is_red(reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEFT", "prog 7")
    (done,) = reports('[{"run": "true"}]')
    assert (done.outcome, done.longreprtext) == ("failed", "left in the kernel: prog 7")


def test_what_is_left_running_is_killed_and_named(reports: Reports, pytester: pytest.Pytester) -> None:
    """Also what has a session of its own, and also after a failure."""
    # a fork becomes what it executes
    started = "setsid sleep 1000 & echo $! > pid; until grep -q sleep /proc/$!/comm; do :; done"
    for end in ("exit 0", "exit 1"):
        (done,) = reports(f'[{{"run": "{started}; {end}"}}]')
        assert done.passed == (end == "exit 0")
        assert not runs((pytester.path / "pid").read_text().strip())
        if done.passed:
            assert dict(done.user_properties)["observed"] == '["left running", "sleep"]'


def test_the_table_is_no_test_file_without_commands(reports: Reports) -> None:
    assert reports("[]") == []


def test_a_repeated_command_has_a_name_for_each_time() -> None:
    assert own_commands.names("x y", "6.1", 1) == ["command[6.1-x y]"]
    assert own_commands.names("x y", "6.1", 2) == ["command[6.1-x y-#1]", "command[6.1-x y-#2]"]


def test_only_what_the_block_has_started_is_ended(tmp_path: Path) -> None:
    """A grandchild whose parent has ended, a process with brackets in its name; not what ran before."""
    bracket = tmp_path / "a) Z 1"
    bracket.symlink_to("/bin/sleep")
    with subprocess.Popen(["sleep", "1000"]) as before:
        with child.adopting() as left:
            subprocess.run(["sh", "-c", f"(setsid sleep 1000 &) ; (setsid '{bracket}' 1000 &)"], check=True)
            # a fork becomes what it executes
            end = time.monotonic() + 20
            while len([name for name, _ in child._children().values() if name in {"sleep", "a) Z 1"}]) < 3:
                assert time.monotonic() < end
                os.sched_yield()
        assert sorted(left) == ["a) Z 1", "sleep"]
        assert list(child._children()) == [before.pid]
        assert before.poll() is None
        before.kill()
