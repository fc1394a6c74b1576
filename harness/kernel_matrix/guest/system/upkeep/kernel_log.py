"""Read a guest's kernel log: its lines during a test, the warnings among them, and lost records."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.shared.channel.console import START_MARK

KMSG = Path("/dev/kmsg")
#: a record: "level,sequence,microseconds,flags;text" (kernel, Documentation/ABI/testing/dev-kmsg)
_RECORD = re.compile(r"\d+,(?P<sequence>\d+),(?P<time>\d+),[^;]*;(?P<text>[^\n]*)")
#: more than the longest record (kernel, PRINTK_MESSAGE_MAX): a smaller buffer is EINVAL
_LONGEST = 1 << 13
#: lines of a warning in a failure's text; the cell's kernel log has all
_MOST_LINES = 100
#: How kernel warnings begin: every WARN and BUG (kernel, include/asm-generic/bug.h), lockdep, KASAN and similar checks
#: (BUG:, WARNING:), UBSAN (lib/ubsan.c), faults (arch/*/mm/fault.c, arch/*/kernel/traps.c), tasks and processors that
#: hang (kernel/hung_task.c, kernel/watchdog.c). They count only at the start of a record, because other messages
#: contain the words, such as "Spectre V2 : WARNING: Unprivileged eBPF is enabled ..." (unpriv_ebpf_notify()), which a
#: sysctl causes.
_WARNING = re.compile(
    r"-+\[ cut here \]-+|WARNING: |(?:watchdog: )?BUG: |kernel BUG at |Oops: |UBSAN: |general protection fault"
    r"|INFO: task \S+ blocked for more than "
)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The kernel's log between two reads."""

    lines: tuple[str, ...] = ()
    #: records that were overwritten before they were read
    lost: int = 0
    #: index of the line with the first warning; None: there is none
    warning: int | None = None
    #: the sequence number of the next record; None: not known yet
    next: int | None = 0

    @property
    def text(self) -> str:
        """All lines as one."""
        return "\n".join(self.lines)

    @property
    def wrong(self) -> str:
        """The defect in one line: a warning or lost records; empty without defect."""
        if self.warning is not None:
            return "the kernel warned"
        return f"{self.lost} records of the kernel's log were overwritten before they were read" if self.lost else ""

    @property
    def why(self) -> str:
        """The lines that show the defect, limited in number: from the first warning on, or from the start."""
        if self.warning is not None:
            return "\n".join(self.lines[self.warning : self.warning + _MOST_LINES])
        return "\n".join(self.lines[:_MOST_LINES])


class KernelLog:
    """Reads the log from its first record on, without the harness's own records."""

    def __init__(self, path: Path = KMSG) -> None:
        """Open the log."""
        self._path = path
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        #: the number of the next record; None: of whichever comes first
        self._next: int | None = 0

    def mark(self, nodeid: str) -> None:
        """Write the start of a test into the log, and with it onto the console."""
        # level 1 (alert) passes every console log level
        self._path.write_text(f"<1>{START_MARK}{nodeid}\n")

    def new(self) -> Excerpt:
        """Return the log since the last call."""
        new_excerpt = excerpt(self.read(), self._next)
        self._next = new_excerpt.next
        return new_excerpt

    def skip(self) -> None:
        """Leave out all records until now.

        A child shares the place in the log with its parent, and not the number that is expected there.
        """
        os.lseek(self._reader, 0, os.SEEK_END)
        self._next = None

    def read(self) -> list[str]:
        """Return the unread records."""
        records = []
        while True:
            try:
                records.append(os.read(self._reader, _LONGEST).decode(errors="replace"))
            except BlockingIOError:
                return records
            except BrokenPipeError:
                # the next record was overwritten; the following read returns the first that is left, whose number
                # shows how many were lost
                continue


def excerpt(records: Iterable[str], expected: int | None) -> Excerpt:
    """Return the excerpt of these records; ``expected``: the sequence number of the first, None: any.

    Raises ValueError.
    """
    lines: list[str] = []
    lost = 0
    warning: int | None = None
    for record in records:
        match = _RECORD.match(record)
        if match is None:
            raise ValueError(f"not a record of the kernel's log: {record!r}")
        if expected is None:
            expected = int(match["sequence"])
        if missed := int(match["sequence"]) - expected:
            lost += missed
            lines.append(f"... ({missed} records were overwritten)")
        expected += missed + 1
        text = match["text"]
        if not text.startswith(START_MARK):
            if warning is None and _WARNING.match(text):
                warning = len(lines)
            lines.append(f"[{int(match['time']) / 1e6:12.6f}] {text}")
    return Excerpt(tuple(lines), lost, warning, expected)
