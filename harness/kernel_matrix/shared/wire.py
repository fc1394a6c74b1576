"""Exchange frozen dataclasses, with paths, as JSON files between the host's processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kernel_matrix.shared import atomic

_T = TypeVar("_T")


def encode(value: object) -> bytes:
    """Return ``value`` as JSON: equal bytes for equal values, also for sets."""
    return msgspec.json.encode(value, enc_hook=_encode, order="deterministic")


def decode(data: bytes, kind: type[_T]) -> _T:
    """Read what ``encode`` wrote; raises msgspec.ValidationError for anything else."""
    return msgspec.json.decode(data, type=kind, dec_hook=_decode)


def write(path: Path, value: object) -> None:
    """Write ``value`` atomically."""
    atomic.write(path, encode(value))


def _encode(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def _decode(kind: type, value: Any) -> Any:  # noqa: ANN401 - msgspec's own signature
    if issubclass(kind, Path):
        return kind(value)
    raise NotImplementedError(f"{kind.__name__} has no JSON form")
