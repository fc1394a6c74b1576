"""Progress of a run in a terminal: for each kernel the current test, how many are done, and the remaining time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from xdist.workermanage import WorkerController

from kernel_matrix.session import reports
from kernel_matrix.shared import pytest_internals
from kernel_matrix.shared.outcomes import expect

if TYPE_CHECKING:
    # a run that nobody watches does not import it
    from rich.console import Console
    from rich.progress import Progress, TaskID

#: of a kernel without a test: its guest waits for a slot, boots, or collects
WAITING = "waiting for its guest"
#: of a kernel that has run all its tests
DONE = "done"


def enabled(config: pytest.Config) -> bool:
    """Whether a terminal shows the output and no option asks for other lines."""
    terminal = config.pluginmanager.getplugin("terminalreporter")
    option = config.option
    other_lines = (option.verbose, option.command, option.keep_guest, option.capture == "no")
    return terminal is not None and terminal.isatty and not any(other_lines)


class ProgressPlugin:
    """A line for each kernel below all other output, in place of a dot for each test; only in a terminal."""

    def __init__(self, config: pytest.Config, kernels: Iterable[str], *, console: Console | None = None) -> None:
        self._config = config
        self._console = console
        self._kernels = tuple(kernels)
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._red = dict.fromkeys(self._kernels, 0)

    def pytest_xdist_setupnodes(self) -> None:
        """Start the display, in place of xdist's lines about its workers."""
        if not self._console and not enabled(self._config):
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        manager = self._config.pluginmanager
        if manager.hasplugin("terminaldistreporter"):
            manager.unregister(name="terminaldistreporter")
        console = self._console or Console(
            file=pytest_internals.output(manager.getplugin("terminalreporter")),
            force_terminal=True,
        )
        self._progress = Progress(
            TextColumn("{task.fields[kernel]}", style="bold"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[red]}", style="bold red"),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            # it is erased before the matrix is shown
            transient=True,
        )
        for kernel in self._kernels:
            self._tasks[kernel] = self._progress.add_task(WAITING, total=None, kernel=kernel, red="")
        self._progress.start()

    def pytest_xdist_node_collection_finished(self, node: WorkerController, ids: Sequence[str]) -> None:
        """Set how many tests a kernel has, from its first guest."""
        task = self._tasks.get(node.gateway.spec.kernel)
        if self._progress is not None and task is not None and self._progress.tasks[task].total is None:
            self._progress.update(task, total=len(ids), description=DONE if not ids else "")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show the test that a kernel runs."""
        kernel = expect.kernel_of_argument(nodeid, self._kernels)
        if self._progress is not None and kernel is not None:
            self._progress.update(self._tasks[kernel], description=expect.split_nodeid(nodeid, kernel))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that has ended; if its guest died in it, there is no report of its teardown."""
        kernel: str = report.node.gateway.spec.kernel
        if self._progress is None or kernel not in self._tasks:
            return
        task = self._tasks[kernel]
        if report.failed:
            self._red[kernel] += 1
            self._progress.update(task, red=f"{self._red[kernel]} red")
        if reports.ends_test(report):
            self._progress.advance(task)
            state = self._progress.tasks[task]
            if state.completed == state.total:
                self._progress.update(task, description=DONE)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, Any, Any]:
        """Print no letter for a test."""
        category, letter, word = yield
        return category, letter if self._progress is None else "", word

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Erase the display before the results are shown."""
        self.stop()

    def pytest_unconfigure(self) -> None:
        """Restore the terminal, however the run ended."""
        self.stop()

    def stop(self) -> None:
        """End the display; calling it again does nothing."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def lines(self) -> list[str]:
        """Return the lines that are shown now, without colours."""
        from rich.console import Console
        from rich.text import Text

        if self._progress is None:
            return []
        screen = Console(width=120, color_system=None)
        with screen.capture() as shown:
            screen.print(self._progress.make_tasks_table(self._progress.tasks))
        return [Text.from_ansi(line).plain.rstrip() for line in shown.get().splitlines()]
