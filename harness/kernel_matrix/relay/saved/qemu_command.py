"""The command of QEMU that virtme-ng made for a restored guest, kept beside the saved one for the next.

virtme-ng computes it in two programs of Python, which takes longer than QEMU needs to load the state. It is the same
each time but for the folder of the guest's sockets. What only a boot reads is not kept: the initial RAM disk, and
which folders of the host are shared, by 9p devices that no guest mounts.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kernel_matrix.shared import atomic, wire
from kernel_matrix.shared.errors import ignoring

NAME = "command.json"
#: stands for the folder of the guest's sockets
_FOLDER = "{folder}"
#: an empty folder below it: what the guest's 9p devices share
_SHARED = "nothing"
#: the cache is read-only or full, or QEMU has just ended: there is no command for the next guest
_NOT_KEPT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.ESRCH)


def keep(place: Path, folder: Path) -> None:
    """Write the command of the QEMU with its files in ``folder`` to the saved guest in ``place``."""
    if _is_ambiguous(folder):
        return
    # a path that is no UTF-8 has no place in JSON
    with ignoring(*_NOT_KEPT), contextlib.suppress(UnicodeDecodeError):
        process = int((folder / "pid").read_text())
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
        # the last word ends with a NUL, too
        atomic.write(place / NAME, wire.encode(list(general(words[:-1], folder))))


def recall(place: Path, folder: Path) -> list[str] | None:
    """Return the command for a guest with its files in ``folder``; None: virtme-ng has to make it."""
    if _is_ambiguous(folder):
        return None
    with ignoring(errno.ENOENT), contextlib.suppress(msgspec.MsgspecError):
        words = wire.decode((place / NAME).read_bytes(), list[str])
        (folder / _SHARED).mkdir()
        return [word.replace(_FOLDER, str(folder)) for word in words]
    return None


def general(words: list[str], folder: Path) -> Iterator[str]:
    """Yield the words of a command for any folder."""
    rest = iter(words)
    for word in rest:
        if word == "-initrd":
            next(rest)
            continue
        yield _sharing_nothing(word) if word.startswith("local,id=") else word.replace(str(folder), _FOLDER)


def _sharing_nothing(device: str) -> str:
    """Replace the path of a 9p device's value (``-fsdev local,id=ID,path=PATH,...``)."""
    return ",".join(f"path={_FOLDER}/{_SHARED}" if part.startswith("path=") else part for part in device.split(","))


def _is_ambiguous(folder: Path) -> bool:
    """Whether QEMU's options write the folder in another way than it is."""
    return "," in str(folder)
