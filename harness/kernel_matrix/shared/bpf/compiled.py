"""What a loader compiles in a guest, as a value that is named by all that decides its content. For both sides.

A guest that compiles reports the value; the host keeps it (`keep`), and guests that would compile the same get it
(`kept`). Both compute its name from their own files, so an entry is never taken for another content.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernel_matrix.shared import atomic, marker
from kernel_matrix.shared.project import ENGINE

#: below a guest's project: the kept values
FOLDER = Path(ENGINE, "compiled")
#: the environment variable that names a guest's compiler and the headers that it includes
COMPILER_VARIABLE = "KERNEL_MATRIX_COMPILER"
#: bytes of an instruction, and of the digest in front of a value
INSTRUCTION, _DIGEST = 8, hashlib.sha256().digest_size
#: the engine's files that decide what is compiled
_COMPILER_FILES = ("guest/bpf/loader_support/bcc_compiler.py", "guest/bpf/loaders/bcc_headers")
_FORMAT = b"1"
_NAME = re.compile(r"[0-9a-f]{16,64}")
#: a line that includes a file by its name, or by a macro
_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*(?:["<]([^">\n]+)[">]|[^"<\s])', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled source."""

    #: the compiler, as `COMPILER_VARIABLE` names it, and all that it has read beside that: an entry's name
    compiler: str
    key: str
    #: the object's path below the build folder, and the loader
    name: str
    loader: str
    #: the seconds that it took
    seconds: float
    license: str
    #: the kernel's version that the program names at its load
    version: int
    #: each map's sizes of key and value; an instruction that loads the address of a map has the map's index here
    maps: Mapping[str, tuple[int, int]]
    #: each program's instructions
    programs: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Refused:
    """A source that a loader does not compile. It is not kept: what was missing may be there the next time."""

    #: the object, as a test names it, and the loader's reason: one line
    object: str
    reason: str

    def as_text(self) -> str:
        """Return it as a line; that of a compiled source has no braces."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Refused:
        """Read the result of `as_text`; raises ValueError for anything else."""
        fields: dict[str, Any] = json.loads(text)
        try:
            refused = cls(**fields)
        except TypeError as error:
            raise ValueError(f"not of this version: {error}") from error
        if not all(isinstance(field, str) for field in fields.values()):
            raise ValueError("not of this version: no texts")
        return refused


def encode(compiled: Compiled) -> bytes:
    """Return the value as bytes that start with the digest of what follows."""
    fields = asdict(compiled)
    fields["programs"] = {name: base64.b64encode(code).decode() for name, code in compiled.programs.items()}
    data = zlib.compress(json.dumps(fields).encode())
    return hashlib.sha256(data).digest() + data


def decode(data: bytes) -> Compiled:
    """Read the result of `encode`; raises ValueError for anything else."""
    if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
        raise ValueError("damaged: its digest is another")
    try:
        fields: dict[str, Any] = json.loads(zlib.decompress(data[_DIGEST:]))
        fields["programs"] = {name: base64.b64decode(code, validate=True) for name, code in fields["programs"].items()}
        fields["maps"] = {name: (int(key), int(value)) for name, (key, value) in fields["maps"].items()}
        compiled = Compiled(**fields)
    except (AttributeError, KeyError, TypeError, zlib.error) as error:
        raise ValueError(f"not of this version: {error}") from error
    _check(compiled)
    return compiled


def _check(compiled: Compiled) -> None:
    """Refuse what no compiler has written; raises ValueError."""
    if not all(_NAME.fullmatch(name) for name in (compiled.compiler, compiled.key)):
        raise ValueError(f"not the name of an entry: {compiled.compiler}/{compiled.key}")
    for name, code in compiled.programs.items():
        if not code or len(code) % INSTRUCTION:
            raise ValueError(f"{name}: {len(code)} bytes are no instructions")
        for start in addresses(code):
            if number(code, start) not in range(len(compiled.maps)):
                raise ValueError(f"{name}: no map {number(code, start)}")


def addresses(code: bytes) -> Iterator[int]:
    """Yield where instructions begin that load the address of a map (linux/bpf.h: BPF_LD_IMM64, BPF_PSEUDO_MAP_FD)."""
    start = 0
    while start < len(code):
        wide = code[start] == 0x18
        if wide and code[start + 1] >> 4 == 1:
            yield start
        start += INSTRUCTION * (2 if wide else 1)


def number(code: bytes, start: int) -> int:
    """Return the immediate value of the instruction that begins there."""
    return int.from_bytes(code[start + 4 : start + 8], "little", signed=True)


def with_numbers(code: bytes, numbers: Mapping[int, int]) -> bytes:
    """Return instructions whose maps have other numbers, old -> new."""
    changed = bytearray(code)
    for start in addresses(code):
        changed[start + 4 : start + 8] = numbers[number(code, start)].to_bytes(4, "little", signed=True)
    return bytes(changed)


def key_of(compiler: str, engine: Path, source: Path, target: Path) -> str:
    """Return the name of what this compiler makes of a source, whose object clang has compiled to ``target``.

    ``engine``: the package's folder. The object counts because the names and sizes of programs and maps are read from
    it (`kernel_matrix.guest.bpf.loader_support.bcc_compiler`).
    """
    state = hashlib.sha256(_FORMAT)
    for name, content in _parts(compiler, engine, source, target):
        for part in (name.encode(), content):
            state.update(len(part).to_bytes(8, "big") + part)
    return state.hexdigest()[:32]


def _parts(compiler: str, engine: Path, source: Path, target: Path) -> Iterator[tuple[str, bytes]]:
    yield compiler, b""
    for top in (engine / name for name in _COMPILER_FILES):
        files = [top] if top.is_file() else sorted(top.rglob("*.h"))
        yield from ((str(path.relative_to(engine)), path.read_bytes()) for path in files)
    yield "object", target.read_bytes()
    for path, content in sorted(_included(source).items()):
        yield os.path.relpath(path, source.parent), content


def _included(source: Path) -> dict[Path, bytes]:
    """Return the contents of a source and of the files beside it that it includes, in whatever branch, and they.

    Where a name is in a macro, every header beside the file counts.
    """
    contents: dict[Path, bytes] = {}
    waiting = [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path in contents:
            continue
        contents[path] = path.read_bytes()
        for name in _INCLUDE.findall(contents[path]):
            named = [folder / os.fsdecode(name) for folder in (path.parent, source.parent)]
            beside = named if name else [*path.parent.glob("*.h"), *source.parent.glob("*.h")]
            waiting += [file.resolve() for file in beside if file.is_file()]
    return contents


def source_of(target: Path, build: Path, sources: Path) -> Path:
    """Return where an object's C source is; raises ValueError for an object outside the build folder."""
    return sources / (str(target.relative_to(build)).removesuffix(".o") + ".c")


def kept(folder: Path, key: str) -> bytes | None:
    """Return an entry of a folder; None when there is none, or what is there is damaged, or another's."""
    try:
        data = (folder / key).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return data if decode(data).key == key else None
    except ValueError:
        return None


def entries(folder: Path, engine: Path, build: Path, sources: Path) -> Iterator[tuple[str, str, bytes | None]]:
    """Yield each object of a build folder that has a source: its name, and its entry's, with the entry's content.

    ``folder``: that of a guest's compiler, which it is named after; it need not exist. Content is None where none is
    kept.
    """
    for target in sorted(build.rglob("*.bpf.o")):
        source = source_of(target, build, sources)
        if source.is_file():
            key = key_of(folder.name, engine, source, target)
            yield str(target.relative_to(build)).removesuffix(".bpf.o"), key, kept(folder, key)


def as_text(compiled: Compiled) -> str:
    """Return the value as a report carries it."""
    return base64.b64encode(encode(compiled)).decode()


def of_text(text: str) -> bytes:
    """Read the result of `as_text`; raises ValueError for anything else."""
    return base64.b64decode(text, validate=True)


def keep(folder: Path, data: bytes) -> Compiled:
    """Write an entry below the folder of all compilers; raises ValueError, and OSError."""
    compiled = decode(data)
    place = folder / compiled.compiler
    place.mkdir(parents=True, exist_ok=True)
    marker.mark(place)
    atomic.write(place / compiled.key, data)
    return compiled
