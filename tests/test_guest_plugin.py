"""What stands in for a guest on the host must not run anything there."""

from __future__ import annotations

import pytest

from kernel_matrix.guest.pytest import plugin
from kernel_matrix.guest.pytest.plugin import index_below, only
from kernel_matrix.shared.outcomes.cells import GUEST
from tests.fake_kernel_log import FakeLog

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("arguments", [[], ["test_kills.py"], ["test_kills.py::test_x"]])
def test_a_given_up_kernel_collects_nothing_even_if_named(pytester: pytest.Pytester, arguments: list[str]) -> None:
    pytester.makeconftest("""
from kernel_matrix.guest.pytest.plugin import GonePlugin

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
def test_a_guest_for_some_files_collects_the_chosen_ones(arguments: list[str], kept: list[str]) -> None:
    """Of its files, a guest collects those that the command line selects."""
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
    assert index_below(files, path) == index


def test_a_guest_that_starts_elsewhere_runs_everything(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests that spoil the guest still run last."""
    # no test is run, and /dev/kmsg is not everyone's
    monkeypatch.setattr(plugin, "KernelLog", FakeLog)
    pytester.makeconftest("""
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.guest.pytest import plugin

def pytest_configure(config):
    config.option.pcap, config.option.repeat, config.option.test_timeout = False, 1, None
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


_WARNS = """
import pytest
from tests.fake_kernel_log import FakeLog

def warn(text="------------[ cut here ]------------"):
    FakeLog.pending.append(text)

@pytest.fixture
def sets_up():
    warn()

@pytest.fixture(scope="module")
def sets_up_module():
    warn()
    yield

@pytest.fixture
def tears_down():
    yield
    warn()

@pytest.fixture(scope="module")
def tears_down_module():
    yield
    warn()
"""
_GUEST = """
import pytest
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.guest.pytest import plugin

def pytest_configure(config):
    config.option.pcap, config.option.repeat, config.option.test_timeout = False, 1, None
    plugin.register(config, GuestFacts("k", frozenset(), frozenset(), {"k": frozenset()}))
"""


def in_a_guest(pytester: pytest.Pytester, body: str, conftest: str = "") -> pytest.RunResult:
    """Run tests as a guest's pytest does."""
    FakeLog.pending.clear()
    pytester.makeconftest(_GUEST + conftest)
    pytester.makepyfile(_WARNS + body)
    return pytester.runpytest_inprocess("-rA")


@pytest.mark.parametrize(
    ("body", "phase"),
    [
        ("def test_x(): warn()", "call"),
        ("def test_x(sets_up): pass", "setup"),
        ("def test_x(sets_up_module): pass", "setup"),
        ("def test_x(tears_down): pass", "teardown"),
        ("def test_x(tears_down_module): pass", "teardown"),
        ("def test_x(): warn('WARNING: possible circular locking dependency detected')", "call"),
        ("def test_x(): warn('BUG: KASAN: slab-use-after-free in x')", "call"),
        ("def test_x(): warn('watchdog: BUG: soft lockup - CPU#0 stuck for 22s!')", "call"),
        ("def test_x(): warn('INFO: task x:1 blocked for more than 120 seconds.')", "call"),
        # whatever comes of the test itself
        ("@pytest.mark.known_issue('k', reason='r', ref='f', raises=KeyError)\ndef test_x(): warn(); {}[0]", "call"),
        ("@pytest.mark.known_issue('k', reason='r', ref='f', raises=KeyError)\ndef test_x(sets_up): {}[0]", "setup"),
    ],
)
def test_a_warning_of_the_kernel_is_an_error_in_any_phase(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, body: str, phase: str
) -> None:
    monkeypatch.setattr(plugin, "KernelLog", FakeLog)
    result = in_a_guest(pytester, body + "\n")
    assert result.parseoutcomes()["errors"] == 1
    result.stdout.fnmatch_lines([f"the kernel warned ({phase}):"])


def test_other_lines_of_the_kernel_are_no_error(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last comes of unprivileged_bpf_disabled=0 on some processors (arch/x86/kernel/cpu/bugs.c)."""
    monkeypatch.setattr(plugin, "KernelLog", FakeLog)
    lines = ["device end entered promiscuous mode", "virtme-ng-init: WARNING: failed", "Spectre V2 : WARNING: eBPF"]
    result = in_a_guest(pytester, f"def test_x():\n    for line in {lines}: warn(line)\n")
    assert result.parseoutcomes() == {"passed": 1}


@pytest.mark.parametrize(
    ("hook", "outcomes"),
    [
        # pytest itself runs nothing then; xdist's worker goes on
        ("pytest_collection_modifyitems", {"errors": 1}),
        ("pytest_runtest_logfinish", {"passed": 1, "errors": 1}),
        ("pytest_sessionfinish", {"passed": 1, "errors": 1}),
    ],
)
def test_a_warning_outside_every_test_is_the_guests(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, hook: str, outcomes: dict[str, int]
) -> None:
    monkeypatch.setattr(plugin, "KernelLog", FakeLog)
    warns = f"from tests.fake_kernel_log import FakeLog\ndef {hook}(): FakeLog.pending.append('WARNING: CPU: 0')\n"
    result = in_a_guest(pytester, "def test_x(): pass\n", warns)
    assert result.parseoutcomes() == outcomes
    result.stdout.fnmatch_lines([f"ERROR {GUEST} - kernel k: the kernel warned outside every test:"])
