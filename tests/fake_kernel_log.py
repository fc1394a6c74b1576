"""A fake kernel log, for a guest's plugin in a pytest on the host."""

from __future__ import annotations

from typing import ClassVar

from kernel_matrix.guest.system.upkeep.kernel_log import KernelLog


class FakeLog(KernelLog):
    """A kernel log whose next records are the texts in `pending`."""

    pending: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self._next = 0
        self._count = 0

    def mark(self, nodeid: str) -> None:
        """Write nothing."""

    def read(self) -> list[str]:
        records = [f"4,{number},0,-;{text}" for number, text in enumerate(self.pending, self._count)]
        self._count += len(records)
        self.pending.clear()
        return records
