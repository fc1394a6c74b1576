"""What only an object's own loader knows, and nobody declared."""

from __future__ import annotations


class Undeclared(Exception):
    """Neither the kernel's fault nor a pass: the text says what is missing, and the line of the table that says it."""

    def __init__(self, why: str, line: str) -> None:
        super().__init__(f"{why}\nadd to the table: {line}")
        self.why = why
        self.line = line


def setting(name: str, key: str, of: str, example: str) -> str:
    """Return the line of the table by which a setting of an object is declared."""
    return f'object."{name}".{key}.{of} = {example}'


def listing(name: str, key: str, of: str) -> str:
    """Return the line by which a setting that is a list is declared."""
    return f'object."{name}".{key} = ["{of}"]'
