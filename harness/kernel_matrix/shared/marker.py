"""The marker of a folder that the harness has created: a folder without it is never deleted.

An option or a setting names the folders of results and cache, and the user may have put other files there under any
name. Folders from a version before the marker are for the user to delete.
"""

from __future__ import annotations

import shutil
from pathlib import Path

#: the file's name
NAME = ".kernel-matrix"
_TEXT = "The kernel matrix has made this folder, and deletes it when it is no longer needed.\n"


def mark(folder: Path) -> None:
    """Mark a folder as the harness's own; raises OSError."""
    (folder / NAME).write_text(_TEXT)


def marked(folder: Path) -> bool:
    """Whether a folder is the harness's own; a link to one is not."""
    return not folder.is_symlink() and (folder / NAME).is_file()


def remove(folder: Path) -> None:
    """Delete a marked folder, even if another run is deleting it at the same time; raises OSError."""

    def failed(_function: object, _path: str, info: tuple[type[BaseException], BaseException, object]) -> None:
        if not isinstance(info[1], FileNotFoundError):
            raise info[1]

    shutil.rmtree(folder, onerror=failed)


def unmarked(folder: Path) -> list[Path]:
    """Return the subfolders that are not marked."""
    return [path for path in sorted(folder.glob("*/")) if not marked(path)]
