"""Hide parts of the file system in the mount namespace of a child of `privilege.run_as`."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from kernel_matrix.guest.system.privilege import Cap, run_as

_T = TypeVar("_T")

#: the usual mount point of bpffs
BPFFS = Path("/sys/fs/bpf")

# linux/mount.h
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MNT_DETACH = 2


def mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    """Mount a file system, or change a mount's flags."""
    result = _libc().mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), None)
    _checked(result, f"mount {kind} {target}")


def unmount(target: str) -> None:
    """Unmount a file system."""
    _checked(_libc().umount2(target.encode(), 0), f"umount {target}")


def without(*places: str, unmounting: Sequence[str] = (), do: Callable[[], _T]) -> _T:
    """Call ``do`` with every capability, where ``places`` are empty and the folders ``unmounting`` are unmounted.

    A child calls it in its own mount namespace; its result is returned, or its exception raised.
    """

    def prepared() -> _T:
        for place in places:
            mount("none", place, "tmpfs")
        for place in unmounting:
            while Path(place).is_mount():
                _checked(_libc().umount2(place.encode(), _MNT_DETACH), f"umount {place}")
        return do()

    return _in_own_namespace(prepared)


def with_bpffs(do: Callable[[Path], _T]) -> _T:
    """Call ``do`` with every capability, with bpffs mounted; its pins are released when the child ends."""

    def prepared() -> _T:
        mount("none", str(BPFFS), "bpf")
        return do(BPFFS)

    return _in_own_namespace(prepared)


def _in_own_namespace(do: Callable[[], _T]) -> _T:
    def child() -> _T:
        os.unshare(os.CLONE_NEWNS)
        mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
        return do()

    return run_as(child, caps=set(Cap))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), what)
