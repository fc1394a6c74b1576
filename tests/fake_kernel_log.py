"""A kernel's log without a kernel, for a guest's plugin in a pytest of the host."""

from __future__ import annotations

from typing import ClassVar

from kernel_matrix.guest.system.kernel_log import KernelLog


class FakeLog(KernelLog):
    """A log without a kernel: what is put into `said` is what it says next."""

    said: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self._next = 0
        self._count = 0

    def mark(self, nodeid: str) -> None:
        """Write nothing."""

    def read(self) -> list[str]:
        records = [f"4,{number},0,-;{text}" for number, text in enumerate(self.said, self._count)]
        self._count += len(records)
        self.said.clear()
        return records
