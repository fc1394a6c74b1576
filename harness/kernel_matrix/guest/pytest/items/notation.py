"""The notation of frames, for whoever only checks it: without what loads and attaches objects."""

from __future__ import annotations

from kernel_matrix.guest.system import frames


def frame_error(notation: str) -> str:
    """Return why scapy builds no frame of a notation; empty: it builds one."""
    try:
        frames.built(notation, near=frames.NO_ADDRESS, far=frames.NO_ADDRESS)
    except frames.FrameError as error:
        return str(error)
    return ""
