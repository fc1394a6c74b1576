"""Errors a caller acts on, each with the exit status its one line ends the command with.

Exit statuses: 0 green, 1 tests or a build failed, 2 interrupted, 3 infrastructure (no verdict
possible), 4 usage or a bad manifest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NoReturn


class HarnessError(Exception):
    """A failure the user can act on: its text is one clear line, shown without a traceback."""

    exit_status = 3


def of_system(error: OSError) -> HarnessError:
    """Turn a failure of the system (a full disk, a folder without permission) into its one line."""
    where = f"{error.filename}: " if error.filename else ""
    return HarnessError(f"{where}{error.strerror or error}")


@contextlib.contextmanager
def passing_over(*numbers: int) -> Iterator[None]:
    """End the block at an OSError with one of these errnos, which the caller expects; any other goes on."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def let_out(error: OSError) -> NoReturn:
    """Raise it: what os.walk is to do with a folder that it cannot read, instead of leaving it out."""
    raise error


class ManifestError(HarnessError):
    """A manifest or an argument says something that is not possible (unknown kernel, unknown key)."""

    exit_status = 4


class ImageError(HarnessError):
    """A kernel or root image could not be fetched, verified or made."""


class NotInArchive(ImageError):
    """The archive has answered, and has no release of a kernel's series."""


class NotWholeInArchive(ImageError):
    """The archive has answered, and has a kernel's image without its parts: they come later, or are gone already."""


class BuildError(HarnessError):
    """A BPF source did not compile; the text carries the compiler's message."""

    exit_status = 1


class ToolMissing(HarnessError):
    """A program of the machine is missing; the text names it, its package and the command to run."""
