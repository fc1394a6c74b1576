"""The commands of the table as tests: the table's file is their test file, and their exit status is the outcome."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import leaks
from kernel_matrix.guest.bpf.foreign import environment
from kernel_matrix.guest.pytest import marks, spent
from kernel_matrix.guest.pytest.items import command, objects
from kernel_matrix.guest.system import netns
from kernel_matrix.guest.system.deadline import limit
from kernel_matrix.guest.system.upkeep import alive, child
from kernel_matrix.shared.channel.protocol import OBSERVED
from kernel_matrix.shared.outcomes.features import plain_kernel
from kernel_matrix.shared.project import HOME, Command

#: the commands that are collected
COMMANDS = pytest.StashKey[tuple[Command, ...]]()
_SUFFIX = ".toml"
#: of the node ids: command[6.1-LINE]
_NAME = "command"
#: seconds of the reference machine, after a command's limit, in which what it has left must end
_AFTER = 5.0


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the file of the table, which the command line or the table's commands name."""
    if file_path.suffix != _SUFFIX or file_path.parent != parent.config.rootpath:
        return None
    if not (parent.config.stash[COMMANDS] and parent.session.isinitpath(file_path)):
        return None
    node: pytest.Collector = TableFile.from_parent(parent, path=file_path)
    return node


class TableFile(pytest.File):
    """The file with the table."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield an item for each command, for this guest's kernel."""
        times = getattr(self.config.option, "repeat", 1)
        for entry in self.config.stash[COMMANDS]:
            for kernel in self.config.stash[objects.KERNELS]:
                for name in names(entry.run, kernel, times):
                    item: pytest.Item = TableCommand.from_parent(self, name=name, command=entry)
                    if entry.fails_on(plain_kernel(kernel)):
                        item.add_marker(_known(entry, plain_kernel(kernel)))
                    yield item


def names(line: str, kernel: str, times: int) -> list[str]:
    """Return the names of a command's items on a kernel, as pytest names a test with parameters."""
    start = f"{_NAME}[{kernel}-{command.printable(line)}"
    return [f"{start}]"] if times == 1 else [f"{start}-#{number}]" for number in range(1, times + 1)]


def _known(entry: Command, kernel: str) -> pytest.MarkDecorator:
    return marks.known_issue(
        kernel, reason="declared in the table", ref=entry.known_issue, raises=command.CommandFailed
    )


class TableCommand(pytest.Item):
    """One command, in a network namespace and with a bpffs of its own; nothing of it is there afterwards."""

    def __init__(self, *, command: Command, **of_item: object) -> None:
        super().__init__(**of_item)  # type: ignore[arg-type]
        self._command = command
        # its limit is its own: the process has to be killed, not only the wait
        self.add_marker(marks.timeout(0))

    def runtest(self) -> None:
        """Run it; raises CommandFailed, and fails where something of it is left in the kernel."""
        option: float | None = self.config.option.test_timeout
        seconds = limit(self._command.timeout) if option is None else option or None
        environment.show_configuration()
        before = leaks.present()
        with alive.working((seconds or float("inf")) + limit(_AFTER)):
            self._run(seconds)
        spent.fail_for(self.config, leaks.wait_for_release(before))

    def _run(self, seconds: float | None) -> None:
        with environment.bpffs(), netns.namespace(ipv6=True) as own, own.entered():
            with child.adopting() as left:
                command.run([self._command.run], HOME, seconds, lambda _: None)
            if left:
                self.user_properties.append((OBSERVED, json.dumps(["left running", " ".join(sorted(left))])))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:  # type: ignore[override]
        """Return the command's failure without a traceback, which would show only the engine."""
        if isinstance(excinfo.value, command.CommandFailed):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the location and name that pytest shows."""
        return self.path, None, self.name
