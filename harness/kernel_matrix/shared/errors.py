"""Errors that a caller acts on, each with the exit status of the command.

Exit statuses: 0 green, 1 tests or a build failed, 2 interrupted, 3 infrastructure (no verdict
possible), 4 usage or a bad manifest.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import NoReturn

#: enum libbpf_errno of libbpf's libbpf.h, which begins at 4000
LIBBPF_ERRORS = {
    4000 + number: f"LIBBPF_ERRNO__{name}"
    for number, name in enumerate(
        "LIBELF FORMAT KVERSION ENDIAN INTERNAL RELOC LOAD VERIFY PROG2BIG KVER PROGTYPE WRNGPID INVSEQ NLPARSE".split()  # noqa: SIM905
    )
}
#: names of errnos that a refusal may have and Python's `errno` does not name so: 95 has two names, of which the kernel
#: uses this one; 524 is internal to the kernel, but reaches user space
ERRNO_NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP", 524: "ENOTSUPP"} | LIBBPF_ERRORS


class HarnessError(Exception):
    """A failure that the user can act on: its text is one clear line, shown without a traceback."""

    exit_status = 3


def of_system(error: OSError) -> HarnessError:
    """Return a failure of the system (a full disk, a folder without permission) as a HarnessError of one line."""
    where = f"{error.filename}: " if error.filename else ""
    return HarnessError(f"{where}{error.strerror or error}")


@contextlib.contextmanager
def ignoring(*numbers: int) -> Iterator[None]:
    """Suppress an OSError with one of these errnos, which ends the block; any other error propagates."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


def reraise(error: OSError) -> NoReturn:
    """Raise the error: pass this to os.walk, which otherwise leaves out a folder that it cannot read."""
    raise error


class ManifestError(HarnessError):
    """A manifest or an argument is invalid (unknown kernel, unknown key)."""

    exit_status = 4


class ImageError(HarnessError):
    """A kernel or root image could not be fetched, verified or built."""


class NotInArchive(ImageError):
    """The archive answered, but has no release of a kernel's series."""


class NotWholeInArchive(ImageError):
    """The archive answered, but lacks packages of a kernel's image: not yet uploaded, or already removed."""


class BuildError(HarnessError):
    """A BPF source did not compile; the text has the compiler's message."""

    exit_status = 1


class ToolMissing(HarnessError):
    """A program is not installed; the text names it, its package and the command to run."""
