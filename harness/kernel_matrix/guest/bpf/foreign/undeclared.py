"""What only an object's own loader knows, and nobody declared."""

from __future__ import annotations

from kernel_matrix.shared.outcomes import proposals


class Undeclared(Exception):
    """Neither the kernel's fault nor a pass: the text says what is missing, and the line of the table that says it."""

    def __init__(self, why: str, line: str) -> None:
        super().__init__(proposals.text(why, line))
        self.why = why
        self.line = line
