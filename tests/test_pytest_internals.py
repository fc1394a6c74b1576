"""What is used of pytest, xdist and execnet beyond what they document, against those that are installed.

Each function meets the real objects, and what it is there to change is seen to change: an upgrade that moves a private
name, or no longer looks at it, fails here.
"""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import execnet
import pytest
from xdist.dsession import DSession
from xdist.workermanage import WorkerController

import kernel_matrix
from kernel_matrix.shared import pytest_internals

pytest_plugins = "pytester"

PACKAGE = Path(kernel_matrix.__file__).parent


def test_nothing_else_of_the_engine_uses_private_names() -> None:
    """Of theirs; the agent stands alone, and says so."""
    private = re.compile(
        r"# noqa: SLF001|^\s*(?:from|import) (?:_pytest|execnet\.|xdist\.(?!dsession|workermanage))", re.MULTILINE
    )
    paths = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if private.search(path.read_text())}
    # sys._current_frames is documented
    assert paths == {"shared/pytest_internals.py", "guest/agent.py", "guest/pytest/limits.py"}


# -- pytest


def test_a_plugin_is_left_out_of_the_header(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = pytestconfig.pluginmanager
    before = [plugin for plugin, _ in manager.list_plugin_distinfo()]
    assert before
    plugin = ModuleType("some.plugin")
    monkeypatch.setattr(manager, "_plugin_distinfo", [(plugin, None), *manager._plugin_distinfo])
    pytest_internals.hide_from_header(pytestconfig, "other.plugin")
    assert manager._plugin_distinfo[0][0] is plugin
    pytest_internals.hide_from_header(pytestconfig, "some.plugin")
    assert [entry for entry, _ in manager.list_plugin_distinfo()] == before


def test_a_terminals_column_and_file_are_found(pytestconfig: pytest.Config) -> None:
    file = io.StringIO()
    terminal = pytest.TerminalReporter(pytestconfig, file)
    assert pytest_internals.output(terminal) is file
    assert pytest_internals.column(terminal) == 0
    terminal.write("abc")
    assert pytest_internals.column(terminal) == 3
    terminal.write_line("d")
    assert pytest_internals.column(terminal) == 0
    assert file.getvalue() == "abcd\n"


@pytest.mark.parametrize("setting", ["FORCE_COLOR", "PY_COLORS"])
def test_a_failure_is_text_without_colours(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(setting, "1")
    with pytest.raises(ZeroDivisionError) as caught:
        print(1 // 0)
    for style in ("long", "short", "native"):
        text = pytest_internals.plain_text(caught.getrepr(style=style))
        assert "1 // 0" in text
        assert "ZeroDivisionError" in text
        assert "\x1b" not in text
    assert pytest_internals.plain_text("a line") == "a line"


WORKER = """
def test_in_a_worker(request):
    assert (request.config.option.basetemp is None) == {without}
"""


@pytest.mark.parametrize("without", [False, True])
def test_workers_are_not_told_of_temporary_folders(pytester: pytest.Pytester, without: bool) -> None:
    """Nor does the session miss them when it ends."""

    class Keeps:
        def pytest_xdist_setupnodes(self, config: pytest.Config) -> None:
            if without:
                pytest_internals.keep_temporary_folders_from_workers(config)

    pytester.makepyfile(WORKER.format(without=without))
    run = pytester.inline_run("-n1", "-pxdist", plugins=[Keeps()])
    run.assertoutcome(passed=1)


# -- xdist


#: as the session makes them
_SPEC = "execmodel=main_thread_only//popen"


class Session:
    """A run of xdist with one worker of its own."""

    def __init__(self, ready: Callable[[DSession, WorkerController], None]) -> None:
        self._ready = ready
        self.nodes: list[str] = []
        self.made: list[str] = []
        self.stops: bool | None = None
        self.config: pytest.Config | None = None

    def pytest_xdist_setupnodes(self, config: pytest.Config) -> None:
        self.config = config
        group = pytest_internals.group(config)
        assert isinstance(group, execnet.Group)
        make = group.makegateway

        def recorded(spec: execnet.XSpec) -> execnet.Gateway:
            self.made.append(str(spec.id))
            return make(spec)

        pytest_internals.replace_makegateway(group, recorded)

    def pytest_testnodeready(self, node: WorkerController) -> None:
        assert self.config is not None
        self.nodes.append(node.gateway.id)
        if len(self.nodes) == 1:
            self._ready(pytest_internals.dsession(self.config), node)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        assert self.config is not None
        self.stops = pytest_internals.stops(pytest_internals.dsession(self.config))


def run(pytester: pytest.Pytester, session: Session, *arguments: str, failed: int = 0) -> Session:
    pytester.makepyfile("def test_first(): assert True\ndef test_second(): assert " + str(not failed))
    pytester.inline_run("-n1", "-pxdist", *arguments, plugins=[session]).assertoutcome(passed=2 - failed, failed=failed)
    return session


def test_the_session_is_xdists_and_makes_gateways_as_told(pytester: pytest.Pytester) -> None:
    seen: list[object] = []
    xdist_run = run(pytester, Session(lambda session, _: seen.append(session)))
    assert [type(argument) for argument in seen] == [DSession]
    assert xdist_run.made == xdist_run.nodes == ["gw0"]


def test_a_node_is_replaced_and_one_is_added(pytester: pytest.Pytester) -> None:
    def ready(session: DSession, node: WorkerController) -> None:
        pytest_internals.replace_node(session, node)
        pytest_internals.add_node(session, execnet.XSpec(_SPEC))

    xdist_run = run(pytester, Session(ready))
    assert xdist_run.made == sorted(xdist_run.nodes) == ["gw0", "gw1", "gw2"]


def test_a_session_does_not_wait_for_a_node_that_it_has_left(pytester: pytest.Pytester) -> None:
    """A second one, of which nothing is ever heard."""
    left: list[set[WorkerController]] = []

    def ready(session: DSession, _: WorkerController) -> None:
        pytest_internals.add_node(session, execnet.XSpec(_SPEC))
        (silent,) = (node for node in session._active_nodes if node.gateway.id == "gw1")
        silent.putevent = lambda _: None
        pytest_internals.leave_node(session, silent)
        left.append({silent} & session._active_nodes)

    assert run(pytester, Session(ready)).nodes == ["gw0"]
    assert left == [set()]


@pytest.mark.parametrize(("arguments", "stops"), [((), False), (("-x",), True)])
def test_that_a_run_is_to_stop_is_found(pytester: pytest.Pytester, arguments: tuple[str, ...], stops: bool) -> None:
    answers: list[bool] = []
    xdist_run = run(
        pytester, Session(lambda session, _: answers.append(pytest_internals.stops(session))), *arguments, failed=1
    )
    assert answers == [False]
    # every session shuts down at its end
    assert xdist_run.stops is True
    assert bool(pytest_internals.dsession(xdist_run.config).shouldstop) is stops  # type: ignore[arg-type]


# -- execnet


@pytest.fixture
def group() -> Iterator[execnet.Group]:
    made = execnet.Group()
    yield made
    made.terminate(5)


def test_a_gateway_answers_what_xdist_asks_without_its_other_end(
    group: execnet.Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = group.makegateway("popen")
    monkeypatch.setattr(gateway, "remote_exec", lambda _: pytest.fail("asked"))
    pytest_internals.answer_for(gateway)
    # WorkerController.setup() begins with it
    info = gateway._rinfo()
    assert (info.executable, info.platform) == (sys.executable, "linux")
    assert tuple(info.version_info) == tuple(sys.version_info)


def behind_a_host(group: execnet.Group) -> tuple[execnet.Gateway, execnet.Gateway, execnet.Gateway]:
    """Return a host, what came through it, and one beside it."""
    host = group.makegateway("popen//id=host")
    return host, group.makegateway("popen//via=host//id=guest"), group.makegateway("popen//id=beside")


def test_nobody_waits_for_what_came_through_a_host_that_is_gone(group: execnet.Group) -> None:
    host, guest, beside = behind_a_host(group)
    before = beside._io
    host._io.kill()
    host.join(10)
    pytest_internals.retire(group, "host")
    assert isinstance(guest._io, pytest_internals._Nothing)
    assert beside._io is before
    began = time.monotonic()
    group.terminate(20)
    assert time.monotonic() - began < 10


def test_only_what_has_been_told_to_end_is_retired_with_ended(group: execnet.Group) -> None:
    _, guest, _ = behind_a_host(group)
    other = group.makegateway("popen//via=host//id=other")
    before = other._io
    guest.exit()
    pytest_internals.retire(group, "host", ended=True)
    assert isinstance(guest._io, pytest_internals._Nothing)
    assert other._io is before
