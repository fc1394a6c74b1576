"""Compile mutants, and recognise those whose object is another one's: no test can tell them apart."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kernel_matrix.commands.mutation import code
from kernel_matrix.commands.mutation.mutant import Mutant
from kernel_matrix.objects import build
from kernel_matrix.shared.errors import BuildError
from kernel_matrix.shared.project import Project

#: after the project's own flags: a mistake that a warning would catch is still to be caught by a test
_NO_WARNINGS = ("-w", "-Wno-error")


@dataclass(frozen=True, slots=True)
class Compiled:
    """The object of a mutant."""

    data: bytes
    #: what it does (`mutation.code`)
    digest: str


@dataclass(slots=True)
class Objects:
    """What the compiler has made of mutants, by their ids."""

    #: the programs themselves, by their names
    programs: dict[str, bytes] = field(default_factory=dict)
    #: the mutants to try, one for each object
    to_try: dict[str, bytes] = field(default_factory=dict)
    #: mutant -> the mutant to try whose object does the same
    twins: dict[str, str] = field(default_factory=dict)
    #: those whose object does what the program's does
    same_code: set[str] = field(default_factory=set)
    #: mutant -> the compiler's first error
    not_compiling: dict[str, str] = field(default_factory=dict)


def compile_all(project: Project, mutants: Sequence[Mutant], say: Callable[[str], None]) -> Objects:
    """Compile the mutants, several at once; raises BuildError where a program itself does not compile, ToolMissing."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(name)
        programs = dict.fromkeys(mutant.program for mutant in mutants)
        originals = {program: _original(project, folder, program) for program in programs}
        work = partial(_compiled, project, folder)
        objects = _sorted(originals, zip(mutants, pool.map(work, mutants), strict=True))
    counts = (
        f"{len(objects.not_compiling)} do not compile, {len(objects.same_code)} have the program's code, "
        f"{len(objects.twins)} the code of another one, {len(objects.to_try)} are to be tried"
    )
    say(f"{len(mutants)} mutants: {counts}")
    return objects


def _original(project: Project, folder: Path, program: str) -> Compiled:
    result = _compile(project, folder / program, program, {})
    if isinstance(result, str):
        raise BuildError(result)
    return result


def _compiled(project: Project, folder: Path, mutant: Mutant) -> Compiled | str:
    return _compile(project, folder / mutant.id.replace("/", "-"), mutant.program, {mutant.file: mutant.changed})


def _compile(project: Project, folder: Path, program: str, changed: dict[str, str]) -> Compiled | str:
    """Return the program's object with these files changed, or the compiler's error.

    The program's source is copied beside the changed header: a quoted include is searched there first.
    """
    assert project.sources is not None
    source = f"{program}.bpf.c"
    files = {source: (project.sources / source).read_text(), **changed}
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    flags = (*project.flags, *project.source_flags.get(source, ()), *_NO_WARNINGS)
    target = folder / "object.o"
    try:
        build.compile_source(folder / source, target, (folder, project.sources), flags)
    except BuildError as error:
        return str(error)
    return Compiled(target.read_bytes(), code.digest(target))


def _sorted(originals: dict[str, Compiled], results: Iterable[tuple[Mutant, Compiled | str]]) -> Objects:
    """Sort the results. Pure."""
    objects = Objects(programs={program: compiled.data for program, compiled in originals.items()})
    first: dict[tuple[str, str], str] = {}
    for mutant, result in results:
        if isinstance(result, str):
            lines = result.splitlines()
            objects.not_compiling[mutant.id] = next((line for line in lines if "error:" in line), lines[0])
        elif result.digest == originals[mutant.program].digest:
            objects.same_code.add(mutant.id)
        elif (key := (mutant.program, result.digest)) in first:
            objects.twins[mutant.id] = first[key]
        else:
            first[key] = mutant.id
            objects.to_try[mutant.id] = result.data
    return objects
