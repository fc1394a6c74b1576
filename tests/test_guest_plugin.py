"""What stands in for a guest on the host must not run anything there."""

from __future__ import annotations

import pytest

from harness.guest import plugin
from harness.guest.plugin import beginning, only

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("arguments", [[], ["test_kills.py"], ["test_kills.py::test_x"]])
def test_a_kernel_that_is_given_up_collects_nothing_even_if_it_is_named(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    pytester.makeconftest("""
from harness.guest.plugin import GonePlugin

def pytest_configure(config):
    config.pluginmanager.register(GonePlugin())
""")
    pytester.makepyfile(test_kills='raise SystemExit("imported on the host")\ndef test_x(): pass\n')
    result = pytester.runpytest_inprocess(*arguments)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.stdout.no_fnmatch_line("*imported on the host*")


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["suites"], ["suites/a/test_x.py", "suites/test_y.py"]),
        (["."], ["suites/a/test_x.py", "suites/test_y.py"]),
        (["suites/a/"], ["suites/a/test_x.py"]),
        (["suites/test_y.py::test_1[6.1]", "suites/test_z.py"], ["suites/test_y.py::test_1[6.1]"]),
        (["suites/a/test_x.py::test_1", "suites/a"], ["suites/a/test_x.py::test_1", "suites/a/test_x.py"]),
        (["suites/b"], []),
    ],
)
def test_a_guest_for_some_files_collects_those_of_the_command_line(arguments: list[str], kept: list[str]) -> None:
    assert only(arguments, ("suites/a/test_x.py", "suites/test_y.py")) == kept


@pytest.mark.parametrize(
    ("path", "index"),
    [
        ("suites/a/test_x.py", 0),
        ("suites/a/test_y.py", 2),
        ("suites/b", 3),
        ("suites/b/test_x.py", 3),
        # not here, or no wish: in the order of collection
        ("suites/c", 0),
        ("suites/b/test", 0),
        ("", 0),
    ],
)
def test_a_guest_begins_with_the_first_test_of_a_file_or_folder(path: str, index: int) -> None:
    files = ["suites/a/test_x.py"] * 2 + ["suites/a/test_y.py"] + ["suites/b/test_x.py"] * 2
    assert beginning(files, path) == index


def test_a_guest_that_begins_elsewhere_runs_everything_and_still_spoils_itself_last(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no test is run, and /dev/kmsg is not everyone's
    monkeypatch.setattr(plugin, "KernelLog", object)
    pytester.makeconftest("""
from harness.features import GuestFacts
from harness.guest import plugin

def pytest_configure(config):
    config.option.pcap, config.option.repeat = False, 1
    facts = GuestFacts("k", frozenset(), frozenset(), {"k": frozenset()})
    plugin.register(config, facts, (), "b")
""")
    files = ["b/test_2.py", "b/test_3.py", "c/test_4.py", "a/test_1.py"]
    for name in files:
        file = pytester.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("""
import pytest
def test_first(): pass
@pytest.mark.spoils_guest("why")
def test_spoils(): pass
def test_last(): pass
""")
    result = pytester.runpytest_inprocess("--collect-only", "-q", "--import-mode=importlib")
    assert [line for line in result.outlines if "::" in line] == [
        *[f"{file}::test_{name}[k]" for file in files for name in ("first", "last")],
        *[f"{file}::test_spoils[k]" for file in files],
    ]
