"""Every use of undocumented parts of pytest, xdist and execnet, in one place to check after an upgrade.

tests/test_pytest_internals.py fails when an upgrade has changed any of them. The agent is self-contained, and imports
pytest's default plugins by their private names in advance; if they are renamed, it is only slower.
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
    """Remove a plugin that does nothing from the header's list of plugins."""
    loaded = config.pluginmanager._plugin_distinfo  # noqa: SLF001
    loaded[:] = [
        (plugin_module, distribution)
        for plugin_module, distribution in loaded
        if getattr(plugin_module, "__name__", "") != plugin
    ]


def column(terminal: TerminalReporter) -> int:
    """Return the width of the terminal's current line."""
    return int(terminal._tw.width_of_current_line)  # noqa: SLF001


def output(terminal: TerminalReporter) -> IO[str]:
    """Return the file that the terminal writes to."""
    file: IO[str] = terminal._tw._file  # noqa: SLF001
    return file


def plain_text(representation: object) -> str:
    """Return a report's failure as text without colours."""
    import io

    from _pytest._code.code import TerminalRepr
    from _pytest._io import TerminalWriter

    if not isinstance(representation, TerminalRepr):
        return str(representation)
    text = io.StringIO()
    writer = TerminalWriter(text)
    # regardless of FORCE_COLOR and PY_COLORS in the environment
    writer.hasmarkup = False
    representation.toterminal(writer)
    return text.getvalue()


def keep_temporary_folders_from_workers(config: pytest.Config) -> None:
    """Keep xdist from sending workers the folder of this run's temporary files, which no guest has."""
    config.pluginmanager.unregister(name="tmpdir")
    unused = vars(config).pop("_tmp_path_factory")
    # pytest deletes the attribute itself when it ends
    config.add_cleanup(lambda: vars(config).update(_tmp_path_factory=unused))


# -- xdist


def dsession(config: pytest.Config) -> DSession:
    """Return xdist's controller."""
    session: DSession = config.pluginmanager.getplugin("dsession")
    return session


def stops(session: DSession) -> bool:
    """Whether the run is stopping (-x)."""
    return bool(session.shuttingdown or session.shouldstop)


def replace_node(session: DSession, node: WorkerController) -> None:
    """Start a new worker like this one, as xdist does when a worker has died."""
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
    workers: execnet.Group = dsession(config).nodemanager.group
    return workers


def replace_makegateway(group: execnet.Group, make: Callable[[Any], Any]) -> None:
    """Let xdist create gateways with this function."""
    vars(group)["makegateway"] = make


# -- execnet


def answer_for(gateway: execnet.Gateway) -> None:
    """Answer xdist's request for a worker's information in its place, because the worker may not exist yet."""
    from execnet.gateway import RInfo

    gateway._cache_rinfo = RInfo(  # noqa: SLF001
        {"executable": sys.executable, "platform": "linux", "cwd": "", "version_info": sys.version_info[:]}
    )


class _Nothing:
    """Replaces the connection to a process that cannot be reached, so that nothing waits for it."""

    def wait(self) -> None:
        return None

    kill = close_write = wait

    def write(self, _: bytes) -> None:
        raise OSError("the connection is lost")


def retire(group: execnet.Group, identity: str, *, ended: bool = False) -> None:
    """Stop waiting for the workers of a lost gateway; ``ended``: only for those that were ordered to end."""
    gateways = [*group._gateways_to_join, *([] if ended else group)]  # noqa: SLF001
    for gateway in gateways:
        if gateway.spec.via == identity:
            gateway._io = _Nothing()  # noqa: SLF001
