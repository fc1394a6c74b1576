"""What was concluded once about this machine and is not tried again: that KVM does not boot, that a guest is not saved.

A file in the cache each, whose name has all that the conclusion depends on. What QEMU or the machine itself has refused
is proven, and stays until it gets another name. What failed in any other way (a time-out, a QEMU that died) may have
failed because the machine was busy: it is asked again after a while, and at once with ``--ask-again``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kernel_matrix.shared import wire

#: seconds after which what is not proven is asked again
AGAIN_AFTER = 6 * 3600.0
#: and how that is said
LATER = f"asked again after {AGAIN_AFTER / 3600:.0f} hours, or with --ask-again"
#: what a conclusion about the accelerator is about
KVM = "KVM"
#: where they lie in the cache
_PATTERNS = ("accelerator-*.json", "snapshots/*.unusable")


@dataclass(frozen=True, slots=True)
class Conclusion:
    """One of them."""

    #: ``KVM``, or a guest's name
    about: str
    why: str
    #: whether it can be used
    works: bool
    #: said by the machine itself, or by what has worked
    proven: bool

    def __str__(self) -> str:
        return f"{self.about}: {self.why} ({'until the machine changes' if self.proven else LATER})"


def remember(path: Path, conclusion: Conclusion) -> None:
    """Write it; it counts from now. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wire.write(path, conclusion)


def recall(path: Path) -> Conclusion | None:
    """Return what was concluded; None when nothing was, or it is to be asked again."""
    found = _read(path)
    if found is None or found.proven:
        return found
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:  # another run has just asked again
        return None
    # a clock that was wrong then, or is now, makes nothing last
    return found if 0 <= age < AGAIN_AFTER else None


def ask_again(path: Path) -> None:
    """Forget what was concluded unless it is proven; raises OSError."""
    found = _read(path)
    if found is not None and not found.proven:
        with contextlib.suppress(FileNotFoundError):  # another run was faster
            path.unlink()


def held(cache: Path) -> Iterator[tuple[Path, Conclusion]]:
    """Yield those that count, and where they are."""
    for pattern in _PATTERNS:
        for path in sorted(cache.glob(pattern)):
            found = recall(path)
            if found is not None:
                yield path, found


def clear(cache: Path) -> int:
    """Forget all of them, those too that do not count any more; return how many there were. Raises OSError."""
    paths = [path for pattern in _PATTERNS for path in cache.glob(pattern) if _read(path) is not None]
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # another run was faster
            path.unlink()
    return len(paths)


def _read(path: Path) -> Conclusion | None:
    try:
        return wire.decode(path.read_bytes(), Conclusion)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
