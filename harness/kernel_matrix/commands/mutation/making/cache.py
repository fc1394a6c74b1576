"""Objects of mutants that were compiled before: a program changes less often than the tests that are to notice them."""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.shared import atomic
from kernel_matrix.shared.errors import ignoring

#: bytes that are kept; those that were not used for longest are deleted first
LIMIT = 128 << 20
_SUFFIX = ".mutant"
#: first byte of a file: the compiler's error as text, or an object behind its digest
_ERROR, _OBJECT = b"E", b"O"
#: errors of a cache that is read-only or full; the run goes on without it
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Compiled:
    """The object of a mutant."""

    data: bytes
    #: what it does (`mutation.code`)
    digest: str


def key(inputs: Iterable[bytes]) -> str:
    """Return the name of what is compiled from these inputs."""
    state = hashlib.sha256()
    for data in inputs:
        state.update(len(data).to_bytes(8, "little") + data)
    return state.hexdigest()


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of results of the compiler."""

    folder: Path

    def get(self, name: str) -> Compiled | str | None:
        """Return an object, or the compiler's error; None for what was not compiled yet."""
        path = self.folder / f"{name}{_SUFFIX}"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        with ignoring(*_UNWRITABLE):
            os.utime(path)
        if content[:1] == _ERROR:
            return content[1:].decode()
        digest, _, packed = content[1:].partition(b"\0")
        return Compiled(zlib.decompress(packed), digest.decode())

    def put(self, name: str, result: Compiled | str) -> None:
        """Keep a result."""
        if isinstance(result, str):
            content = _ERROR + result.encode()
        else:
            content = _OBJECT + result.digest.encode() + b"\0" + zlib.compress(result.data)
        with ignoring(*_UNWRITABLE):
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.write(self.folder / f"{name}{_SUFFIX}", content)

    def prune(self, limit: int = LIMIT) -> None:
        """Delete the results that were not used for longest until the rest fits."""
        paths = {path: path.stat() for path in self.folder.glob(f"*{_SUFFIX}")}
        size = sum(stat.st_size for stat in paths.values())
        for path in sorted(paths, key=lambda path: paths[path].st_mtime):
            if size <= limit:
                return
            size -= paths[path].st_size
            # another run may have been faster
            with ignoring(errno.ENOENT, *_UNWRITABLE):
                path.unlink()
