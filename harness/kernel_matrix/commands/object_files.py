"""The commands ``build`` and ``diagnose``: compile the objects, try an object here or in guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kernel_matrix.config import project
from kernel_matrix.objects import build, rust


def compile_objects() -> Iterator[str]:
    """Compile the project's objects; yield a line for each. Raises BuildError and ToolMissing."""
    here = project.find()
    if here.make:
        yield f"build: {here.make}"
        build.make(here)
    for name, path in sorted(build.build_all(here).items()):
        yield f"{name}: {here.relative(path)}"
    yield from rust.reasons(here)


def diagnose_here(path: Path) -> tuple[bool, str]:
    """Load and attach an object's programs on this machine; return whether all were attached, and a report."""
    from kernel_matrix.guest.bpf.diagnosis import trying

    return trying.report(build.checked(path).absolute())
