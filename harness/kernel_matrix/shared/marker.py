"""The marker of a folder that is this harness's own: nothing without it is ever deleted.

Results and cache lie in folders that an option or a setting names, where the user may have put other things, under
any name. What a version before the marker has made is the user's to delete.
"""

from __future__ import annotations

import shutil
from pathlib import Path

#: the file's name
NAME = ".kernel-matrix"
_TEXT = "The kernel matrix has made this folder, and deletes it when it is no longer needed.\n"


def mark(folder: Path) -> None:
    """Make a folder the harness's own; raises OSError."""
    (folder / NAME).write_text(_TEXT)


def marked(folder: Path) -> bool:
    """Whether a folder is the harness's own; a link to one is not."""
    return not folder.is_symlink() and (folder / NAME).is_file()


def remove(folder: Path) -> None:
    """Delete a folder of the harness's own; what another run has deleted meanwhile is passed over. Raises OSError."""

    def failed(_function: object, _path: str, info: tuple[type[BaseException], BaseException, object]) -> None:
        if not isinstance(info[1], FileNotFoundError):
            raise info[1]

    shutil.rmtree(folder, onerror=failed)


def unmarked(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not the harness's own."""
    return [path for path in sorted(folder.glob("*/")) if not marked(path)]
