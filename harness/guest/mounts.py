"""Hide parts of the file system, for a child of `privilege.run_as` that ends with its own mount namespace."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import TypeVar

from harness.guest.privilege import Cap, run_as

_T = TypeVar("_T")

# linux/mount.h
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000


def mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    """Put a file system, or new flags, onto a place."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), f"mount {kind} {target}")


def without(*places: str, do: Callable[[], _T]) -> _T:
    """Do something, with every capability, where these folders are empty; its result or exception comes back."""

    def child() -> _T:
        os.unshare(os.CLONE_NEWNS)
        mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
        for place in places:
            mount("none", place, "tmpfs")
        return do()

    return run_as(child, caps=set(Cap))
