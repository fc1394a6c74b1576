"""What a test does to its guest depends on the verdict, so that mutants can panic it and hang it."""

import signal
from pathlib import Path

from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.bpf.steps import object_path

XDP_ABORTED, XDP_PASS, XDP_TX = 0, 2, 3


def verdict(loader: Loader) -> int:
    with loader.opened(object_path("verdict")) as obj:
        return obj.test_run("verdict", bytes(64))[0]


def test_is_quick(loader: Loader) -> None:
    assert verdict(loader) != XDP_ABORTED + 1


def test_passes(loader: Loader) -> None:
    returned = verdict(loader)
    if returned == XDP_ABORTED:
        Path("/proc/sysrq-trigger").write_text("c")
    if returned == XDP_TX:
        # the limit of the test does not reach it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        signal.sigwait({signal.SIGUSR2})
    assert returned == XDP_PASS
