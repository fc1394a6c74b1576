"""Compile the BPF programs written in Rust: a crate for each, one object for all kernels.

The crate NAME of ``[compile] rust`` becomes ``build/rust/NAME.bpf.o``. It is compiled again only when one of its files,
the flags, the compiler or the linker changed.

Few machines can compile them: rustc generates LLVM's bitcode, bpf-linker of the same LLVM makes the object, and Rust's
`core` for BPF is no part of a usual toolchain. A machine that lacks one of these has no such objects, and the reason
in a file beside where the object would be; a run does not fail for it. What the compiler refuses is a BuildError.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.shared import atomic, hints
from kernel_matrix.shared.errors import BuildError, ManifestError
from kernel_matrix.shared.project import Project

#: start of the objects' names
OBJECTS = "rust/"

_TARGET = f"bpf{'el' if sys.byteorder == 'little' else 'eb'}-unknown-none"
#: v2 as for C (kernel_matrix.objects.build); BTF is made of the compiler's debug information
_FLAGS = ("-Clinker=bpf-linker", "-Ctarget-cpu=v2", "-Cdebuginfo=2", "-Clink-arg=--btf")
#: where distributions have programs that a PATH may lack, or have behind those of rustup
_SYSTEM = "/usr/bin"
#: a crate's own files that do not come from its author
_MADE = frozenset({"target", ".git"})
#: sections without which no loader takes the object
_SECTIONS = (".BTF", ".BTF.ext", ".maps", "license")


class _UnavailableError(Exception):
    """What this machine lacks."""


@dataclass(frozen=True, slots=True)
class _Toolchain:
    """What compiles a crate."""

    cargo: str
    rustc: str
    linker: str
    #: whether `core` is compiled, too: from the source beside rustc
    core_from_source: bool
    #: what rustc and the linker say of themselves
    versions: str


def build_all(project: Project) -> dict[str, Path]:
    """Compile what changed; return the objects by their names (``rust/packets``): none where tools are missing.

    Raises BuildError with the compiler's message, ManifestError for a folder that is no crate.
    """
    crates = {_name(folder): folder for folder in (project.root / path for path in project.rust)}
    targets = {name: project.build / OBJECTS / f"{name}.bpf.o" for name in crates}
    for stale in {*(project.build / OBJECTS).glob("*.bpf.unavailable")} - {*map(reason_file, targets.values())}:
        _unlink(stale)
    try:
        toolchain = _toolchain() if crates else None
    except _UnavailableError as error:
        for target in targets.values():
            _delete(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            install = hints.command("bootstrap", "--with rust-bpf")
            atomic.write(reason_file(target), f"rust objects: {error}; {install}\n")
        return {}
    if toolchain is not None:
        for name, folder in crates.items():
            _build(folder, name, targets[name], toolchain)
    return {OBJECTS + name: target for name, target in targets.items()}


def reason_file(target: Path) -> Path:
    """Return the file with the line that says why there is no such object."""
    return target.with_suffix(".unavailable")


def reasons(project: Project) -> Iterator[str]:
    """Yield a line for each object that the last `build_all` could not compile here."""
    for path in sorted((project.build / OBJECTS).glob("*.bpf.unavailable")):
        yield f"{OBJECTS}{path.name.removesuffix('.bpf.unavailable')}: {path.read_text().rstrip()}"


def _name(folder: Path) -> str:
    try:
        manifest = tomllib.loads((folder / "Cargo.toml").read_text())
        return str(manifest["package"]["name"])
    except OSError as error:
        raise ManifestError(f"{folder / 'Cargo.toml'}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ManifestError(f"{folder / 'Cargo.toml'}: no package with a name: {error}") from error


def _toolchain() -> _Toolchain:
    """Return the tools of this machine; raises _UnavailableError."""
    cargo, linker = _find("cargo"), _find("bpf-linker")
    compilers = [rustc for rustc in dict.fromkeys(_all("rustc")) if _answer(rustc, "--version")]
    if not compilers:
        raise _UnavailableError("rustc is not installed")
    roots = {rustc: Path(_answer(rustc, "--print", "sysroot").strip()) / "lib" / "rustlib" for rustc in compilers}
    compiled = [rustc for rustc, root in roots.items() if any((root / _TARGET / "lib").glob("libcore-*.rlib"))]
    sources = [rustc for rustc, root in roots.items() if (root / "src" / "rust" / "library" / "core").is_dir()]
    says = {rustc: _answer(rustc, "-vV") for rustc in compiled + sources}
    if not says:
        raise _UnavailableError(f"no rustc has Rust's core for {_TARGET}, or its source")
    linked = _llvm(Path(linker))
    fitting = [rustc for rustc, text in says.items() if not linked or f"\nLLVM version: {linked}." in text]
    if not fitting:
        raise _UnavailableError(f"bpf-linker reads code of LLVM {linked}, no rustc with Rust's core generates it")
    rustc = fitting[0]
    versions = f"{says[rustc]}{_answer(linker, '--version')}LLVM {linked}"
    return _Toolchain(cargo, rustc, linker, rustc not in compiled, versions)


def _find(program: str) -> str:
    path = next(_all(program), None)
    if path is None:
        raise _UnavailableError(f"{program} is not installed")
    return path


def _all(program: str) -> Iterator[str]:
    """Yield every program of that name on PATH, in cargo's folder, and the distribution's."""
    cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "bin"
    for folder in [*os.environ.get("PATH", "").split(os.pathsep), str(cargo), _SYSTEM]:
        if folder and (path := shutil.which(program, path=folder)):
            yield path


def _answer(*command: str) -> str:
    """Return a program's output; empty when it fails, as rustup's does without a toolchain."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except (FileNotFoundError, PermissionError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _llvm(program: Path) -> str:
    """Return the major version of the shared LLVM that a program is linked with, empty without one."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile

    # a linker that is a script names no LLVM
    with suppress(ELFError), program.open("rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        tags = dynamic.iter_tags("DT_NEEDED") if isinstance(dynamic, DynamicSection) else ()
        needed = " ".join(str(tag.needed) for tag in tags)  # type: ignore[attr-defined] # set by the tag's name
        version = re.search(r"libLLVM(?:\.so\.|-)(\d+)", needed)
        return version[1] if version else ""
    return ""


def _build(folder: Path, name: str, target: Path, toolchain: _Toolchain) -> None:
    files = {path.relative_to(folder): path.read_bytes() for path in sorted(_files(folder))}
    state = hashlib.sha256("\0".join([toolchain.versions, *_FLAGS]).encode())
    for path, content in files.items():
        state.update(f"{path}\0{len(content)}\0".encode() + content)
    key = state.hexdigest()
    stamp = target.with_suffix(".key")
    if target.exists() and stamp.exists() and stamp.read_text() == key:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compiling-") as made:
        # cargo writes beside the sources
        work = Path(made) / name
        for path, content in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_bytes(content)
        made_object = _cargo(work, name, toolchain)
        _strip(made_object)
        _check(made_object)
        made_object.replace(target)
        atomic.write(stamp, key)
    _unlink(reason_file(target))


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name in _MADE:
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _cargo(work: Path, name: str, toolchain: _Toolchain) -> Path:
    """Compile the crate in that folder; return its object. Raises BuildError."""
    command = [toolchain.cargo, "build", "--quiet", "--release", "--target", _TARGET]
    command += ["-Zbuild-std=core"] if toolchain.core_from_source else []
    command += ["--locked"] if (work / "Cargo.lock").exists() else []
    _run(command, work, f"{name}: cargo failed", _environment(os.environ, work, toolchain))
    return work / "target" / _TARGET / "release" / name


def _environment(inherited: Mapping[str, str], work: Path, toolchain: _Toolchain) -> dict[str, str]:
    """Return cargo's environment: the user's, but for what would change the object."""
    dropped = ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "RUSTC_")
    home = inherited.get("CARGO_HOME") or str(Path.home() / ".cargo")
    # the object names the sources of its instructions: not where this machine has them
    names = [f"--remap-path-prefix={path}={name}" for path, name in ((work, "."), (home, "cargo"))]
    return {
        **{name: value for name, value in inherited.items() if not name.startswith(dropped)},
        "RUSTC": toolchain.rustc,
        # aya-ebpf uses an unstable feature on this target (asm_experimental_arch), as does build-std
        "RUSTC_BOOTSTRAP": "1",
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join([*_FLAGS[1:], f"-Clinker={toolchain.linker}", *names]),
        "CARGO_TARGET_DIR": str(work / "target"),
        # a lock that is not kept: crates that need a newer compiler are not chosen
        "CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS": "fallback",
    }


def _strip(path: Path) -> None:
    """Remove DWARF and keep BTF, where there is a program for it."""
    _run(["llvm-strip", "--strip-debug", str(path)], path.parent, f"{path.name}: llvm-strip failed", os.environ)


def _check(path: Path) -> None:
    """Refuse an object that no loader would take; raises BuildError."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            machine, lacking = elf["e_machine"], [name for name in _SECTIONS if not elf.get_section_by_name(name)]
    except (OSError, ELFError) as error:
        raise BuildError(f"{path.name}: bpf-linker wrote no object: {error}") from error
    if machine != "EM_BPF" or lacking:
        raise BuildError(f"{path.name}: {machine}, without {', '.join(lacking) or 'nothing'}: not an object for BPF")


def _delete(target: Path) -> None:
    for path in (target, target.with_suffix(".key")):
        _unlink(path)


def _unlink(path: Path) -> None:
    """Delete a file that may be gone; another run may be deleting it, too."""
    with suppress(FileNotFoundError):
        path.unlink()


def _run(command: list[str], folder: Path, what: str, environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{what}: {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise BuildError(f"{what}\n{done.stderr.rstrip()}")
