"""What only an object's own loader knows, and nobody declared."""

from __future__ import annotations

from kernel_matrix.shared.outcomes import proposals


class Undeclared(Exception):
    """Neither the kernel's fault nor a pass: the text says what is missing, and the line of the table that says it."""

    def __init__(self, why: str, line: str) -> None:
        super().__init__(proposals.text(why, line))
        self.why = why
        self.line = line


class NoTarget(Undeclared):
    """No guest has what the program is attached to, whatever the table says; it may say that nobody expects it."""

    def __init__(self, why: str, name: str, program: str) -> None:
        super().__init__(why, proposals.optional(f"*/{name}::{program}::attach"))
