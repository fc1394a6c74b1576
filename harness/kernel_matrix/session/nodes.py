"""The worker and the kernel of an xdist node."""

from __future__ import annotations

from xdist.workermanage import WorkerController

from kernel_matrix.shared.channel.division import WorkerId


def kernel_of(node: WorkerController) -> str:
    """Return the kernel of a node."""
    name: str = node.gateway.spec.kernel
    return name


def worker_of(node: WorkerController) -> WorkerId:
    """Return the worker of a node; a stand-in for a dead node is the same worker."""
    return WorkerId(kernel_of(node), int(node.gateway.spec.worker))
