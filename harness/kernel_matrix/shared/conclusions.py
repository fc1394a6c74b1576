"""Remember conclusions about this machine, such as that KVM does not boot or that a guest cannot be saved.

Each conclusion is a file in the cache, whose name has everything that the conclusion depends on. What QEMU or the
machine itself refuses is proven, and is valid as long as the name stays the same. Any other failure (a time-out, a
QEMU that died) may come from a busy machine: it is tried again after a while, and at once with ``--ask-again``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kernel_matrix.shared import wire

#: seconds after which a conclusion without proof expires
AGAIN_AFTER = 6 * 3600.0
#: the same as text
LATER = f"asked again after {AGAIN_AFTER / 3600:.0f} hours, or with --ask-again"
#: `Conclusion.about` of the accelerator
KVM = "KVM"
#: their paths in the cache
_PATTERNS = ("accelerator-*.json", "snapshots/*.unusable")


@dataclass(frozen=True, slots=True)
class Conclusion:
    """One conclusion."""

    #: ``KVM``, or a guest's name
    about: str
    why: str
    #: whether its subject works
    works: bool
    #: whether the machine itself refused, or it worked
    proven: bool

    def __str__(self) -> str:
        return f"{self.about}: {self.why} ({'until the machine changes' if self.proven else LATER})"


def remember(path: Path, conclusion: Conclusion) -> None:
    """Write a conclusion, valid from now; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wire.write(path, conclusion)


def recall(path: Path) -> Conclusion | None:
    """Return the conclusion; None when there is none or it has expired."""
    conclusion = _read(path)
    if conclusion is None or conclusion.proven:
        return conclusion
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:  # another run has just deleted it
        return None
    # a negative age comes from a wrong clock: the conclusion must not last because of it
    return conclusion if 0 <= age < AGAIN_AFTER else None


def ask_again(path: Path) -> None:
    """Delete the conclusion unless it is proven; raises OSError."""
    conclusion = _read(path)
    if conclusion is not None and not conclusion.proven:
        with contextlib.suppress(FileNotFoundError):  # another run was faster
            path.unlink()


def held(cache: Path) -> Iterator[tuple[Path, Conclusion]]:
    """Yield the path and content of each valid conclusion."""
    for pattern in _PATTERNS:
        for path in sorted(cache.glob(pattern)):
            conclusion = recall(path)
            if conclusion is not None:
                yield path, conclusion


def clear(cache: Path) -> int:
    """Delete all conclusions, also those that have expired; return their number. Raises OSError."""
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
