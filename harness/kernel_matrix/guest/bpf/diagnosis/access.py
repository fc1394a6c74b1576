"""Check what a process with other credentials may do here: with files, and with bpf() as a whole."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path

from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.bpf.step_error import Credentials
from kernel_matrix.guest.system.privilege import run_as

#: the permission bits that a stage needs: of the file that it names, and of the file's folder
_MODES = {"pin": (0, os.W_OK | os.X_OK), "open": (os.R_OK | os.W_OK, os.X_OK), "read": (os.R_OK, os.X_OK)}


def denied(stage: str, target: str, credentials: Credentials) -> bool:
    """Whether the owner and mode of a step's file deny it to a process without capabilities."""
    path = Path(target)
    if stage not in _MODES or not path.is_absolute():
        return False
    own, folder = _MODES[stage]
    # in another user namespace the process owns no file here, whatever its uid is inside
    uid = None if credentials.in_user_namespace else credentials.uid
    needed = [(path, own), (path.parent, folder), *((file, os.X_OK) for file in path.parent.parents)]
    return any(bits and not _permits(file, uid, bits) for file, bits in needed)


def _permits(path: Path, uid: int | None, bits: int) -> bool:
    """Whether a file's mode for its owner, or for others, has these bits; True for a missing file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    shift = 6 if status.st_uid == uid else 0
    return stat.S_IMODE(status.st_mode) >> shift & bits == bits


def closes_all() -> bool:
    """Whether bpf() currently refuses every command without CAP_BPF (until c8644cd0efe7, 5.19).

    A lookup with an invalid map fd shows it: the kernel returns EPERM before it looks for the map, otherwise EBADF.
    """
    return run_as(_refused, caps=()) if Credentials.this_process().resolved().has_bpf else _refused()


def _refused() -> bool:
    ctypes.set_errno(0)
    result = libbpf().bpf_map_lookup_elem(-1, bytes(4), ctypes.create_string_buffer(4))
    if result not in {-errno.EPERM, -errno.EBADF}:
        raise OSError(-result, "a lookup in no map")
    return bool(result == -errno.EPERM)
