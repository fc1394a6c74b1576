"""The commands ``build`` and ``diagnose``: compile the objects, try an object here or in guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kernel_matrix.config import project
from kernel_matrix.objects import build, rust


def compile_objects() -> Iterator[str]:
    """Compile the project's objects; yield a line for each. Raises BuildError and ToolMissing."""
    here = project.find()
    for name, path in sorted(build.build_all(here).items()):
        yield f"{name}: {here.relative(path)}"
    yield from rust.reasons(here)


def diagnose(path: Path, kernel: str | None) -> Iterator[tuple[bool, str]]:
    """Load and attach an object's programs in guests of a kernel, None: on this machine.

    Yield for each machine whether all programs were attached, and a report. Raises HarnessError.
    """
    checked_path = build.checked(path).absolute()
    if kernel:
        from kernel_matrix.commands import try_object

        yield from try_object.diagnose(project.find(), kernel, checked_path)
    else:
        from kernel_matrix.guest.bpf.diagnosis import trying

        yield trying.report(checked_path)
