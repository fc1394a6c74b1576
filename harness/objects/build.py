"""Compiling the BPF programs: one object for all kernels.

``bpf/NAME.bpf.c`` becomes ``build/NAME.bpf.o``, ``bpf/fixtures/NAME.bpf.c`` (programs that tests need) becomes
``build/fixtures/NAME.bpf.o``. An object is compiled again only when its source, a header, the flags or the compiler
changed.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from harness.shared.errors import BuildError, ManifestError, ToolMissing
from harness.shared.root import ROOT

#: fixtures that are compiled for the other byte order
BIG_ENDIAN = frozenset({"big_endian.bpf.c"})


#: -g makes BTF, without which libbpf refuses an object; -mcpu=v2 is what 5.10 verifies as well as later kernels do
#: (v3's 32-bit arithmetic cost its verifier much of what it knows about a value)
FLAGS = ("-target", "bpf", "-mcpu=v2", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-D__TARGET_ARCH_x86")


def build_all(root: Path = ROOT) -> dict[str, Path]:
    """Compile what changed; return every object by its name (``xdp_packet_counter``, ``fixtures/attach``).

    Raises BuildError with the compiler's message, ToolMissing without a compiler.
    """
    source = root / "bpf"
    objects = {}
    for path in sorted(source.rglob("*.bpf.c")):
        name = str(path.relative_to(source)).removesuffix(".bpf.c")
        objects[name] = root / "build" / f"{name}.bpf.o"
        _build(path, objects[name], sorted(source.rglob("*.h")))
    if not objects:
        raise BuildError(f"no BPF sources in {source}")
    return objects


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


def _build(source: Path, target: Path, headers: list[Path]) -> None:
    state = hashlib.sha256(_compiler().encode())
    for path in [source, *headers]:
        state.update(path.name.encode() + b"\0" + path.read_bytes())
    key = state.hexdigest()
    stamp = target.with_suffix(".key")
    if target.exists() and stamp.exists() and stamp.read_text() == key:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compiling-") as name:
        made = Path(name) / target.name
        include = [f"-I{source.parent}", f"-I{source.parents[1] / 'bpf'}"]
        system = [f"-idirafter{folder}" for folder in _system_headers()]
        # of two -target the last one counts
        order = ["-target", "bpfeb"] if source.name in BIG_ENDIAN else []
        _run(
            ["clang", *FLAGS, *order, *include, *system, "-c", str(source), "-o", str(made)],
            f"{source.name}: clang failed",
        )
        # DWARF goes, BTF stays
        _run(["llvm-strip", "--strip-debug", str(made)], f"{source.name}: llvm-strip failed")
        made.replace(target)
        stamp.write_text(key)


@cache
def _compiler() -> str:
    return _run(["clang", "--version"], "clang") + " ".join(FLAGS)


@cache
def _system_headers() -> tuple[Path, ...]:
    """Return the multiarch folder with asm/types.h, which ``-target bpf`` does not look into."""
    triple = _run(["clang", "-print-target-triple"], "clang").strip().replace("-pc-", "-").replace("-unknown-", "-")
    folder = Path("/usr/include") / triple
    return (folder,) if folder.is_dir() else ()


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ToolMissing(f"{command[0]} is missing: run `nox -s bootstrap`") from error
    if done.returncode != 0:
        raise BuildError(f"{what}\n{done.stderr.rstrip()}")
    return done.stdout
