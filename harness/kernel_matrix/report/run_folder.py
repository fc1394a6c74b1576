"""What a run leaves behind: a folder of its own, and ``latest`` pointing to it.

``results.jsonl`` grows a cell at a time, so that a run that is killed still says what it had found.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kernel_matrix.report.reports import BUILT_IN, Report
from kernel_matrix.results import document, matrix
from kernel_matrix.results.document import Column, Document
from kernel_matrix.shared import atomic, marker, wire
from kernel_matrix.shared.cells import Cell, Outcome
from kernel_matrix.shared.division import MARK
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.features import plain_kernel
from kernel_matrix.vm.guests import GuestRecord

#: bytes of a console's end that go into the report
_CONSOLE = 16_000
#: runs that are kept, the new one among them; older ones are deleted when a new one starts
_KEPT_RUNS = 10
#: a run's name: when it began, and its process. A copy under another name is the user's, marker and all
_RUN = re.compile(r"\d+T\d+-\d+")
#: of a file, its ending left to others; a file system's limit is 255
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What was booted under a kernel's name."""

    name: str
    #: ``uname -r``
    release: str
    #: the package's version
    version: str
    notes: tuple[str, ...] = ()
    #: the first twelve digits of its configuration's sha256; empty where the configuration is not to be had
    config: str = ""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a reader of the results needs to know about the run."""

    #: the accelerator and why it was chosen
    accelerator: str
    #: guests at once
    guests: int
    kernels: tuple[KernelFacts, ...]
    #: the command line, as pytest was given it
    arguments: tuple[str, ...] = ()
    #: whether all tests of its kernels are to run
    whole: bool = False
    #: which part of the tests ran, such as ``2/5``; empty: all
    shard: str = ""
    #: what the user should know of the whole run, a line each
    notes: tuple[str, ...] = ()

    @property
    def releases(self) -> dict[str, str]:
        """The release of each kernel."""
        return {kernel.name: kernel.release for kernel in self.kernels}


def notes(kernels: Iterable[KernelFacts]) -> tuple[str, ...]:
    """Return what the user should know of the kernels: a kernel and its variants have one image, and say it once."""
    return tuple(dict.fromkeys(f"{plain_kernel(each.name)}: {note}" for each in kernels for note in each.notes))


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The content of run.json."""

    facts: RunFacts
    #: seconds from the run's first line to its last
    seconds: float
    exit_status: int
    cells: int
    guests: tuple[GuestRecord, ...]


class RunDirectory:
    """The folder of one run."""

    def __init__(self, path: Path, reports: Sequence[Report] = BUILT_IN) -> None:
        self.path = path
        self._reports = reports
        self._started = time.monotonic()
        self._began = datetime.now(UTC)
        (path / "console").mkdir()

    @classmethod
    def create(cls, parent: Path, reports: Sequence[Report] = BUILT_IN) -> RunDirectory:
        """Make a folder below ``parent`` and let ``latest`` point to it; delete the oldest runs.

        Raises ManifestError where ``latest`` is something else, HarnessError where nothing can be written.
        """
        try:
            _check_latest(parent / "latest")
            parent.mkdir(parents=True, exist_ok=True)
            path = parent / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
            path.mkdir()
            marker.mark(path)
            link = parent / f".latest-{os.getpid()}"
            link.symlink_to(path.name)
            link.replace(parent / "latest")
            for old in [each for each in _old_runs(parent) if each != path][: 1 - _KEPT_RUNS]:
                marker.remove(old)
            return cls(path, reports)
        except OSError as error:
            where = error.filename or parent
            raise HarnessError(f"results cannot be written to {parent}: {where}: {error.strerror}") from error

    def backdate(self, began: datetime, seconds: float) -> None:
        """Say of results that were found elsewhere when that began and how long it took."""
        self._began = began
        self._started = time.monotonic() - seconds

    def console(self, kernel: str) -> Path:
        """Return where that kernel's console goes."""
        return self.path / "console" / f"{kernel}.log"

    def join_consoles(self, kernels: Iterable[str]) -> None:
        """Put the consoles of guests beside a kernel's own behind that one's: a kernel has one console."""
        for kernel in kernels:
            for path in sorted((self.path / "console").glob(f"{glob.escape(kernel + MARK)}*.log")):
                with self.console(kernel).open("ab") as file:
                    file.write(path.read_bytes())
                path.unlink()

    def append(self, cell: Cell) -> None:
        """Add a cell to results.jsonl."""
        with (self.path / "results.jsonl").open("ab") as file:
            file.write(wire.encode(cell) + b"\n")

    def keep_facts(self, name: str, kernel: str, text: str) -> None:
        """Write what a test found out about a kernel, as JSON: ``<name>/<kernel>.json``."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        atomic.write(folder / f"{kernel}.json", text)

    def keep_pcap(self, kernel: str, test: str, content: str) -> None:
        """Write what went over a failing test's veth pairs, given in base64: ``pcap/<kernel>/<test>.pcap``."""
        folder = self.path / "pcap" / kernel
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write(folder / f"{file_name(test)}.pcap", base64.b64decode(content))

    def document(self, judged: matrix.Matrix, facts: RunFacts, exit_status: int = 0) -> Document:
        """Make one value of what this run found, compared with nothing yet.

        Raises HarnessError for what tests recorded and nobody can read.
        """
        costs = document.read_costs(self.path)
        known = {kernel.name: kernel for kernel in facts.kernels}
        columns = []
        for name in judged.kernels:
            kernel = known.get(name, KernelFacts(name, "", ""))
            columns.append(Column(name, kernel.release, kernel.version, kernel.config, costs.get(name, {})))
        return Document(
            version=document.VERSION,
            started=self._began.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._started, 3),
            exit_status=exit_status,
            accelerator=facts.accelerator,
            guests=facts.guests,
            arguments=facts.arguments,
            whole=facts.whole,
            shard=facts.shard,
            notes=(*facts.notes, *notes(facts.kernels)),
            columns=tuple(columns),
            cells=judged.cells,
            changes=(),
        )

    def finish(self, found: Document, facts: RunFacts, guests: tuple[GuestRecord, ...]) -> None:
        """Write what needs the whole matrix: the cells without a report, and every file but results.jsonl."""
        for cell in found.cells:
            if cell.outcome is Outcome.NOTRUN:
                self.append(cell)
        wire.write(self.path / document.NAME, found)
        record = RunRecord(facts, found.seconds, found.exit_status, len(found.cells), guests)
        wire.write(self.path / "run.json", record)
        for report in self._reports:
            atomic.write(self.path / report.file, report.render(found, self._console_ends))

    def _console_ends(self, kernels: Iterable[str]) -> dict[str, str]:
        """Return the end of each kernel's console, of those that have one."""
        found = {}
        for kernel in dict.fromkeys(kernels):
            with contextlib.suppress(FileNotFoundError), self.console(kernel).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _CONSOLE))
                found[kernel] = file.read().decode(errors="replace")
        return found


def file_name(test: str) -> str:
    """Return a test's name without what a file's name cannot hold, or a shell takes for something else."""
    return re.sub(r"[^\w.,=+@-]+", "_", test.replace(".py::", "/"))[:_LONGEST_NAME].strip("_")


def _check_latest(path: Path) -> None:
    """Refuse to replace what is no link of an earlier run's; raises ManifestError."""
    ours = _RUN.fullmatch(str(path.readlink())) if path.is_symlink() else not path.exists()
    if not ours:
        raise ManifestError(f"results: {path} is no run of the matrix and would be replaced: choose another folder")


def _old_runs(parent: Path) -> list[Path]:
    """Return the runs in a folder, the oldest first: of what is there, only what the harness has made."""
    return sorted(path for path in parent.glob("*/") if _RUN.fullmatch(path.name) and marker.marked(path))
