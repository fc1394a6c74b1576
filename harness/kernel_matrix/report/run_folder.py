"""The folder of a run, and ``latest``, a link to the newest one.

``results.jsonl`` grows by one cell at a time, so that the results of a killed run are not lost.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from kernel_matrix.report.reports import BUILT_IN, Report
from kernel_matrix.results import document, matrix
from kernel_matrix.results.document import Column, Document
from kernel_matrix.results.evidence import Digest, ObjectEvidence
from kernel_matrix.shared import atomic, marker, wire
from kernel_matrix.shared.bpf.costs import COSTS
from kernel_matrix.shared.channel.division import MARK
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.shared.outcomes.features import plain_kernel
from kernel_matrix.vm.guests import GuestRecord

#: bytes of the end of a console that go into the report
_CONSOLE = 16_000
#: runs that are kept, with the new one; older ones are deleted when a run starts
_KEPT_RUNS = 10
#: a run's name: when it began, and its process. A copy with another name belongs to the user, even with its marker
_RUN = re.compile(r"\d+T\d+-\d+")
#: characters of a file's name without suffix; a file system's limit is 255
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """The package that was booted for a kernel."""

    name: str
    #: ``uname -r``
    release: str
    #: the package's version
    version: str
    notes: tuple[str, ...] = ()
    #: the first twelve digits of its configuration's sha256; empty where the configuration is unavailable
    config: str = ""
    #: as in `Column`
    digests: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a reader of the results needs to know about the run."""

    #: the accelerator and why it was chosen
    accelerator: str
    #: guests at once
    guests: int
    kernels: tuple[KernelFacts, ...]
    #: the command line of pytest
    arguments: tuple[str, ...] = ()
    #: whether all tests of its kernels are to run
    whole: bool = False
    #: which part of the tests ran, such as ``2/5``; empty: all
    shard: str = ""
    #: lines about the whole run for the user
    notes: tuple[str, ...] = ()
    #: the loaders that tests run with
    loaders: tuple[str, ...] = ()
    #: as in `Document`
    left_out: tuple[str, ...] = ()
    #: as in `Document`
    objects: tuple[ObjectEvidence, ...] = ()
    configuration: tuple[Digest, ...] = ()

    @property
    def releases(self) -> dict[str, str]:
        """The release of each kernel."""
        return {kernel.name: kernel.release for kernel in self.kernels}


def notes(kernels: Iterable[KernelFacts]) -> tuple[str, ...]:
    """Return the lines about kernels for the user; those of a kernel and its variants, which share an image, once."""
    return tuple(dict.fromkeys(f"{plain_kernel(kernel.name)}: {note}" for kernel in kernels for note in kernel.notes))


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
            for old in [run for run in _old_runs(parent) if run != path][: 1 - _KEPT_RUNS]:
                marker.remove(old)
            return cls(path, reports)
        except OSError as error:
            where = error.filename or parent
            raise HarnessError(f"results cannot be written to {parent}: {where}: {error.strerror}") from error

    def backdate(self, began: datetime, seconds: float) -> None:
        """Set when a run began that ran elsewhere, and how long it took."""
        self._began = began
        self._started = time.monotonic() - seconds

    def console(self, kernel: str) -> Path:
        """Return the file of that kernel's console."""
        return self.path / "console" / f"{kernel}.log"

    def join_consoles(self, kernels: Iterable[str]) -> None:
        """Append the consoles of a kernel's further guests to that of its first one."""
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
        """Write facts that a test recorded about a kernel, as JSON: ``<name>/<kernel>.json``.

        Costs come in parts, a test for each.
        """
        path = self.path / name / f"{kernel}.json"
        path.parent.mkdir(exist_ok=True)
        if name == COSTS and path.exists():
            text = json.dumps(json.loads(path.read_text()) | json.loads(text))
        atomic.write(path, text)

    def keep_pcap(self, kernel: str, test: str, content: str) -> None:
        """Write the packets of a failing test's veth pairs, base64 in ``content``: ``pcap/<kernel>/<test>.pcap``."""
        folder = self.path / "pcap" / kernel
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write(folder / f"{file_name(test)}.pcap", base64.b64decode(content))

    def document(self, judged: matrix.Matrix, facts: RunFacts, exit_status: int = 0) -> Document:
        """Return the run's result set, without a comparison.

        Raises HarnessError where a file of the tests cannot be read.
        """
        costs = document.read_costs(self.path)
        by_name = {kernel.name: kernel for kernel in facts.kernels}
        columns = []
        for name in judged.kernels:
            kernel = by_name.get(name, KernelFacts(name, "", ""))
            version, config = kernel.version, kernel.config
            columns.append(Column(name, kernel.release, version, config, costs.get(name, {}), digests=kernel.digests))
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
            loaders=facts.loaders,
            left_out=facts.left_out,
            objects=facts.objects,
            configuration=facts.configuration,
        )

    def finish(self, result: Document, facts: RunFacts, guests: tuple[GuestRecord, ...]) -> None:
        """Write all that needs the whole matrix: the cells without a report, and every file but results.jsonl."""
        for cell in result.cells:
            if cell.outcome is Outcome.NOTRUN:
                self.append(cell)
        result = replace(result, columns=tuple(_observed(column, guests) for column in result.columns))
        wire.write(self.path / document.NAME, result)
        record = RunRecord(facts, result.seconds, result.exit_status, len(result.cells), guests)
        wire.write(self.path / "run.json", record)
        for report in self._reports:
            content = report.render(result, self._console_ends)
            if content is not None:
                atomic.write(self.path / report.file, content)

    def _console_ends(self, kernels: Iterable[str]) -> dict[str, str]:
        """Return kernel -> the end of its console, for kernels that have one."""
        ends = {}
        for kernel in dict.fromkeys(kernels):
            with contextlib.suppress(FileNotFoundError), self.console(kernel).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _CONSOLE))
                ends[kernel] = file.read().decode(errors="replace")
        return ends


def _observed(column: Column, guests: Iterable[GuestRecord]) -> Column:
    """Return a column with the releases that its guests reported."""
    releases = {guest.release for guest in guests if guest.kernel == column.kernel and guest.release}
    return replace(column, observed=tuple(sorted(releases)))


def file_name(test: str) -> str:
    """Return a test's name without characters that a file's name cannot hold or a shell treats specially."""
    return re.sub(r"[^\w.,=+@-]+", "_", test.replace(".py::", "/"))[:_LONGEST_NAME].strip("_")


def _check_latest(path: Path) -> None:
    """Refuse to replace anything but the link of an earlier run; raises ManifestError."""
    ours = _RUN.fullmatch(str(path.readlink())) if path.is_symlink() else not path.exists()
    if not ours:
        raise ManifestError(f"results: {path} is no run of the matrix and would be replaced: choose another folder")


def _old_runs(parent: Path) -> list[Path]:
    """Return the runs in a folder, the oldest first; only folders that the harness made."""
    return sorted(path for path in parent.glob("*/") if _RUN.fullmatch(path.name) and marker.marked(path))
