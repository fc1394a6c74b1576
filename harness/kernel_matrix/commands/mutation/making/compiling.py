"""Compile mutants, and recognise those whose object is another one's: no test can tell them apart."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kernel_matrix.commands.mutation.making import cache, code
from kernel_matrix.commands.mutation.making.cache import Cache, Compiled
from kernel_matrix.commands.mutation.making.mutant import Mutant
from kernel_matrix.objects import build
from kernel_matrix.shared.errors import BuildError
from kernel_matrix.shared.project import Project

#: after the project's own flags: a mistake that a warning would catch is still to be caught by a test
_NO_WARNINGS = ("-w", "-Wno-error")


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


def compile_all(project: Project, mutants: Sequence[Mutant], kept: Cache, say: Callable[[str], None]) -> Objects:
    """Compile the mutants, several at once; raises BuildError where a program itself does not compile, ToolMissing."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        compiler = _Compiler(project, kept, Path(name))
        originals = {
            program: compiler.program(program) for program in dict.fromkeys(mutant.program for mutant in mutants)
        }
        objects = _sorted(originals, zip(mutants, pool.map(compiler.mutant, mutants), strict=True))
    kept.prune()
    counts = (
        f"{len(objects.not_compiling)} do not compile, {len(objects.same_code)} have the program's code, "
        f"{len(objects.twins)} the code of another one, {len(objects.to_try)} are to be tried"
    )
    say(f"{len(mutants)} mutants: {counts}")
    return objects


class _Compiler:
    """Compiles programs with changed files."""

    def __init__(self, project: Project, kept: Cache, folder: Path) -> None:
        assert project.sources is not None
        self._project = project
        self._sources = project.sources
        self._cache = kept
        self._folder = folder
        self._headers = b"\0".join(path.read_bytes() for path in sorted(project.sources.rglob("*.h")))

    def program(self, program: str) -> Compiled:
        """Compile a program as it is; raises BuildError."""
        result = self._compiled(program, {})
        if isinstance(result, str):
            raise BuildError(result)
        return result

    def mutant(self, mutant: Mutant) -> Compiled | str:
        """Return a mutant's object, or the compiler's error."""
        return self._compiled(mutant.program, {mutant.file: mutant.changed})

    def _compiled(self, program: str, changed: Mapping[str, str]) -> Compiled | str:
        source = f"{program}.bpf.c"
        # the program's source is copied beside a changed header: a quoted include is searched there first
        files = {source: (self._sources / source).read_text(), **changed}
        flags = (*self._project.flags, *self._project.source_flags.get(source, ()), *_NO_WARNINGS)
        inputs = (build.compiler(), " ".join(flags), *(word for file in sorted(files.items()) for word in file))
        name = cache.key([self._headers, *(text.encode() for text in inputs)])
        if (result := self._cache.get(name)) is None:
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                result = self._compile(Path(folder), source, files, flags)
            self._cache.put(name, result)
        return result

    def _compile(self, folder: Path, source: str, files: Mapping[str, str], flags: Iterable[str]) -> Compiled | str:
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        target = folder / "object.o"
        try:
            build.compile_source(folder / source, target, (folder, self._sources), flags, root=folder)
        except BuildError as error:
            return str(error).replace(f"{folder}/", "")
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
