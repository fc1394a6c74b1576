"""cilium/ebpf, the Go library: a program of harness/loaders/cilium."""

from __future__ import annotations

from kernel_matrix.guest.bpf.loader_support.loader_program import ProgramLoader


def create() -> ProgramLoader:
    """Return the loader; its program starts with the first object."""
    return ProgramLoader("cilium")
