"""Compile the BPF programs: one object for all kernels.

``NAME.bpf.c`` of the project's sources becomes ``build/NAME.bpf.o``, ``fixtures/NAME.bpf.c`` (programs for tests)
becomes ``build/fixtures/NAME.bpf.o``; the engine's own programs, for its probes, go to ``build/engine/``, those in Rust
(kernel_matrix.objects.rust) to ``build/rust/``. An object is compiled again only when its source, a header, the flags
or the compiler changed. The object of a source that is gone is deleted, or tests that use it would pass here and fail
in a fresh clone.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernel_matrix.arch import CURRENT, IN_THE_KERNEL
from kernel_matrix.objects import rust
from kernel_matrix.shared import atomic, hints
from kernel_matrix.shared import project as project_paths
from kernel_matrix.shared.errors import BuildError, ManifestError, ToolMissing
from kernel_matrix.shared.project import Project

#: folder of the engine's own sources, and the start of their objects' names
_ENGINE_SOURCES = Path(__file__).resolve().parent.parent / "guest" / "probes" / "programs"
ENGINE_OBJECTS = f"{project_paths.ENGINE_OBJECTS}/"

#: -g generates BTF, without which libbpf refuses an object; -mcpu=v2 is what 5.10 verifies as well as later kernels
#: do (with v3's 32-bit arithmetic its verifier loses much of its knowledge of a value)
FLAGS = ("-target", "bpf", "-mcpu=v2", "-O2", "-g", *CURRENT.compiler)
#: cilium/ebpf, cmd/bpf2go: NAME_ARCHITECTURE_bpfel.o
_BPF2GO = re.compile(rf"_({'|'.join(IN_THE_KERNEL)})_bpfe[lb]\.o$")
#: lines of the output of a command that made no objects
_LAST_LINES = 20
_ENGINE_FLAGS = ("-Wall", "-Wextra", "-Werror")


def build_all(project: Project) -> dict[str, Path]:
    """Compile what changed; return every object by its name (``packets``, ``fixtures/attach``).

    Raises BuildError with the compiler's message, ToolMissing without a compiler.
    """
    objects = {}
    for folder, prefix in _sources(project).items():
        headers = sorted(folder.rglob("*.h"))
        for path in sorted(folder.rglob("*.bpf.c")):
            source = str(path.relative_to(folder))
            name = prefix + source.removesuffix(".bpf.c")
            objects[name] = project.build / f"{name}.bpf.o"
            own = _ENGINE_FLAGS if prefix else (*project.flags, *project.source_flags.get(source, ()))
            root = _ENGINE_SOURCES if prefix else project.root
            _build(path, objects[name], _Inputs(folder, tuple(headers), own, root))
    objects |= rust.build_all(project)
    if project.sources is not None and all(name.startswith(ENGINE_OBJECTS) for name in objects):
        raise BuildError(f"no BPF sources in {project.sources}")
    _delete_stale(project.build, set(objects.values()))
    return objects


def make(project: Project) -> None:
    """Run the table's command that makes the objects; raises BuildError with the last lines of its output."""
    if not project.make:
        return
    done = subprocess.run(
        ["sh", "-c", project.make],
        cwd=project.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        why = f"exit status {done.returncode}" if done.returncode > 0 else f"killed by signal {-done.returncode}"
        lines = done.stdout.decode(errors="replace").splitlines()[-_LAST_LINES:]
        raise BuildError("\n".join([f"{project.table}: build: {project.make}: {why}", *lines]))


def _delete_stale(folder: Path, objects: AbstractSet[Path]) -> None:
    """Delete the objects that were compiled here from sources that are gone; a key beside an object marks it."""
    for stamp in folder.rglob("*.bpf.key"):
        if (compiled := stamp.with_suffix(".o")) not in objects:
            for path in (compiled, stamp):
                # another run may be deleting them, too
                with suppress(FileNotFoundError):
                    path.unlink()


def _sources(project: Project) -> dict[Path, str]:
    """Return the folders of sources, and the start of their objects' names."""
    own = {} if project.sources is None else {project.sources: ""}
    # nothing but tests uses the engine's own; a machine with compiled objects may have no compiler
    return own | {_ENGINE_SOURCES: ENGINE_OBJECTS} if project.tests or not project.objects else own


def is_for_another_architecture(name: str) -> bool:
    """Whether bpf2go, which names architectures as the kernel's source does, has made an object for another one."""
    made_for = _BPF2GO.search(name)
    return made_for is not None and made_for[1] != CURRENT.kernel


def checked(path: Path) -> Path:
    """Return the path of an object file; anything else is a ManifestError."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
    if magic != b"\x7fELF":
        raise ManifestError(f"{path}: not an object file")
    return path


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs of an object in addition to its source."""

    folder: Path
    headers: tuple[Path, ...]
    #: flags of this source only, after the common ones
    flags: tuple[str, ...]
    #: the folder that sources are named from
    root: Path


def _build(source: Path, target: Path, inputs: _Inputs) -> None:
    state = hashlib.sha256(" ".join([compiler(), *inputs.flags, str(source.relative_to(inputs.root))]).encode())
    for path in [source, *inputs.headers]:
        state.update(path.name.encode() + b"\0" + path.read_bytes())
    key = state.hexdigest()
    stamp = target.with_suffix(".key")
    if target.exists() and stamp.exists() and stamp.read_text() == key:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compiling-") as name:
        compiled = Path(name) / target.name
        compile_source(source, compiled, (source.parent, inputs.folder), inputs.flags, root=inputs.root)
        compiled.replace(target)
        atomic.write(stamp, key)


def compile_source(
    source: Path, target: Path, folders: Iterable[Path], flags: Iterable[str] = (), *, root: Path
) -> None:
    """Compile a source to an object without DWARF; ``folders`` are searched for headers.

    The object names its sources from ``root``, so the same sources in another clone become the same bytes.

    Raises BuildError with the compiler's message, ToolMissing without a compiler.
    """
    include = [f"-I{folder}" for folder in dict.fromkeys(folders)]
    names = [f"-ffile-prefix-map={root}/=", "-fdebug-compilation-dir=."]
    system = [f"-idirafter{folder}" for folder in _system_headers()]
    _run(
        ["clang", *FLAGS, *flags, *names, *include, *system, "-c", str(source), "-o", str(target)],
        f"{source.name}: clang failed",
    )
    # removes DWARF and keeps BTF
    _run(["llvm-strip", "--strip-debug", str(target)], f"{source.name}: llvm-strip failed")


@cache
def compiler() -> str:
    """Return what names the compiler and the engine's flags; raises ToolMissing."""
    return _run(["clang", "--version"], "clang") + " ".join(FLAGS)


@cache
def _system_headers() -> tuple[Path, ...]:
    """Return the multiarch folder with asm/types.h, which ``-target bpf`` does not search."""
    triple = _run(["clang", "-print-target-triple"], "clang").strip().replace("-pc-", "-").replace("-unknown-", "-")
    folder = Path("/usr/include") / triple
    return (folder,) if folder.is_dir() else ()


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ToolMissing(f"{command[0]} is missing: run `{hints.command('bootstrap')}`") from error
    if done.returncode != 0:
        raise BuildError(f"{what}\n{done.stderr.rstrip()}")
    return done.stdout
