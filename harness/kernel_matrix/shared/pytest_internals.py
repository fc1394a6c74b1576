"""All that is used of pytest, xdist and execnet beyond what they document: one place to look at after an upgrade.

tests/test_pytest_internals.py fails when an upgrade has moved any of it. The agent, which is self-contained, imports
pytest's default plugins by their private names beforehand; without them it is only slower.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import execnet
    import pytest
    from _pytest.terminal import TerminalReporter
    from xdist.dsession import DSession
    from xdist.workermanage import WorkerController

# -- pytest


def hide_from_header(config: pytest.Config, plugin: str) -> None:
    """Leave a plugin that does nothing out of the header's list of plugins."""
    loaded = config.pluginmanager._plugin_distinfo  # noqa: SLF001
    loaded[:] = [(each, found) for each, found in loaded if getattr(each, "__name__", "") != plugin]


def column(terminal: TerminalReporter) -> int:
    """Return how much is written in the terminal's current line."""
    return int(terminal._tw.width_of_current_line)  # noqa: SLF001


def output(terminal: TerminalReporter) -> IO[str]:
    """Return the file that the terminal writes to."""
    file: IO[str] = terminal._tw._file  # noqa: SLF001
    return file


def plain_text(representation: object) -> str:
    """Return what a report has as its failure, without colours."""
    import io

    from _pytest._code.code import TerminalRepr
    from _pytest._io import TerminalWriter

    if not isinstance(representation, TerminalRepr):
        return str(representation)
    text = io.StringIO()
    writer = TerminalWriter(text)
    # whatever the environment says of colours (FORCE_COLOR, PY_COLORS)
    writer.hasmarkup = False
    representation.toterminal(writer)
    return text.getvalue()


def keep_temporary_folders_from_workers(config: pytest.Config) -> None:
    """Keep xdist from telling workers where this run's temporary files are: no guest has that folder."""
    config.pluginmanager.unregister(name="tmpdir")
    unused = vars(config).pop("_tmp_path_factory")
    # pytest takes it away itself when it ends
    config.add_cleanup(lambda: vars(config).update(_tmp_path_factory=unused))


# -- xdist


def dsession(config: pytest.Config) -> DSession:
    """Return xdist's controller."""
    session: DSession = config.pluginmanager.getplugin("dsession")
    return session


def stops(session: DSession) -> bool:
    """Whether the run is to stop (-x)."""
    return bool(session.shuttingdown or session.shouldstop)


def replace_node(session: DSession, node: WorkerController) -> None:
    """Start another worker like this one, as xdist does for one that has died."""
    session._clone_node(node)  # noqa: SLF001


def add_node(session: DSession, spec: execnet.XSpec) -> None:
    """Start one more worker."""
    session.nodemanager.group.allocate_id(spec)
    session._active_nodes.add(session.nodemanager.setup_node(spec, session.queue.put))  # noqa: SLF001


def leave_node(session: DSession, node: WorkerController) -> None:
    """Let the session end without waiting for this worker."""
    session._active_nodes.discard(node)  # noqa: SLF001


def group(config: pytest.Config) -> execnet.Group:
    """Return execnet's group of all workers."""
    found: execnet.Group = dsession(config).nodemanager.group
    return found


def replace_makegateway(group: execnet.Group, make: Callable[[Any], Any]) -> None:
    """Let xdist start gateways by this function."""
    vars(group)["makegateway"] = make


# -- execnet


def answer_for(gateway: execnet.Gateway) -> None:
    """Answer for a worker that may not be there yet what xdist would wait for it to say."""
    from execnet.gateway import RInfo

    gateway._cache_rinfo = RInfo(  # noqa: SLF001
        {"executable": sys.executable, "platform": "linux", "cwd": "", "version_info": sys.version_info[:]}
    )


class _Nothing:
    """In place of a process that cannot be reached: there is none to wait for."""

    def wait(self) -> None:
        return None

    kill = close_write = wait

    def write(self, _: bytes) -> None:
        raise OSError("the connection is lost")


def retire(group: execnet.Group, identity: str, *, ended: bool = False) -> None:
    """Let nobody wait for what came through a gateway; ``ended``: only for what has been told to end."""
    found = [*group._gateways_to_join, *([] if ended else group)]  # noqa: SLF001
    for gateway in found:
        if gateway.spec.via == identity:
            gateway._io = _Nothing()  # noqa: SLF001
