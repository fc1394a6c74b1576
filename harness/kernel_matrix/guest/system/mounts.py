"""Hide parts of the file system, for a child of `privilege.run_as` that ends with its own mount namespace."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from kernel_matrix.guest.system.privilege import Cap, run_as

_T = TypeVar("_T")

#: where bpffs belongs
BPFFS = Path("/sys/fs/bpf")

# linux/mount.h
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MNT_DETACH = 2


def mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    """Put a file system, or new flags, onto a place."""
    result = _libc().mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), None)
    _checked(result, f"mount {kind} {target}")


def without(*places: str, unmounting: Sequence[str] = (), do: Callable[[], _T]) -> _T:
    """Do something, with every capability, where some folders are empty and others unmounted.

    A child does it in a mount namespace of its own; its result or exception comes back.
    """

    def there() -> _T:
        for place in places:
            mount("none", place, "tmpfs")
        for place in unmounting:
            while Path(place).is_mount():
                _checked(_libc().umount2(place.encode(), _MNT_DETACH), f"umount {place}")
        return do()

    return _in_own_namespace(there)


def with_bpffs(do: Callable[[Path], _T]) -> _T:
    """Do something, with every capability, where bpffs is mounted; its pins are gone with the child that does it."""

    def there() -> _T:
        mount("none", str(BPFFS), "bpf")
        return do(BPFFS)

    return _in_own_namespace(there)


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
