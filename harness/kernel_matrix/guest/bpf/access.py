"""What a process other than this one may do here: with files, and with bpf() as a whole."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path

from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.bpf.step_error import Asker
from kernel_matrix.guest.system.privilege import run_as

#: what a stage does with the file that it names: its own bits, and those of the folder that it is in
_MODES = {"pin": (0, os.W_OK | os.X_OK), "open": (os.R_OK | os.W_OK, os.X_OK), "read": (os.R_OK, os.X_OK)}


def denied(stage: str, target: str, asker: Asker) -> bool:
    """Say whether owners and modes keep a process without a capability from the file that a step names."""
    path = Path(target)
    if stage not in _MODES or not path.is_absolute():
        return False
    own, folder = _MODES[stage]
    # from another user namespace it is nobody's uid that counts, whatever it is called inside
    uid = None if asker.in_user_namespace else asker.uid
    wanted = [(path, own), (path.parent, folder), *((each, os.X_OK) for each in path.parent.parents)]
    return any(bits and not _permits(each, uid, bits) for each, bits in wanted)


def _permits(path: Path, uid: int | None, bits: int) -> bool:
    """Say whether the owner's or the others' mode of a file has these bits; a file that is not there has them."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    shift = 6 if found.st_uid == uid else 0
    return stat.S_IMODE(found.st_mode) >> shift & bits == bits


def closes_all() -> bool:
    """Say whether bpf() refuses whoever lacks CAP_BPF whatever it is for (until c8644cd0efe7, 5.19), as things are set.

    Asked of the kernel by a lookup in no map: EPERM before it looks for the map, otherwise EBADF.
    """
    return run_as(_refused, caps=()) if Asker.this_process().settled().has_bpf else _refused()


def _refused() -> bool:
    ctypes.set_errno(0)
    result = libbpf().bpf_map_lookup_elem(-1, bytes(4), ctypes.create_string_buffer(4))
    if result not in {-errno.EPERM, -errno.EBADF}:
        raise OSError(-result, "a lookup in no map")
    return bool(result == -errno.EPERM)
