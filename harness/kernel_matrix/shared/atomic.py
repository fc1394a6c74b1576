"""Write files atomically: complete or not at all, even if the writing process is killed."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path


def write(path: Path, content: str | bytes) -> None:
    """Replace a file's content, text as UTF-8; the old content stays when that fails. Raises OSError."""
    data = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # it was not created
            part.unlink()
        raise
