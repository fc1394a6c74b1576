"""The kernel complains while a test passes."""

from __future__ import annotations

from pathlib import Path


def test_the_kernel_complains() -> None:
    """Passes by itself; the line it leaves in the kernel's log is what a WARN begins with."""
    Path("/dev/kmsg").write_text("<4>------------[ cut here ]------------\n")
