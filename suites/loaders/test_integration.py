"""``cargo test --test test_ebpf_kernel_integration -- --nocapture``, as HyperMesh's documentation runs it.

The binary is built on the host from harness/loaders/aya/tests and carried; each of its functions is a cell here.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.pytest.marks import with_loaders
from kernel_matrix.shared.project import build_folder, loader_test

pytestmark = with_loaders("aya")

TEST = "test_ebpf_kernel_integration"
FUNCTIONS = (
    "a_refused_connect_is_one_event_with_its_errno",
    "connect_is_one_event",
    "execve_is_one_event",
    "xdp_counts_every_datagram_on_lo",
    "xdp_counts_nothing_before_it_is_attached",
)


def _run(loader: Loader, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the binary and print its output, which the cell's report has then."""
    command = [str(loader_test(loader.name, TEST)), *arguments]
    environment = {**os.environ, "EBPF_OBJECTS": str(build_folder()), "RUST_BACKTRACE": "1"}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout)
    return done


def test_every_function_is_a_cell(loader: Loader) -> None:
    """``--list`` has exactly the functions of the next test."""
    done = _run(loader, "--list", "--format=terse")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{function}: test" for function in FUNCTIONS]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_passes(loader: Loader, function: str) -> None:
    """``--exact FUNCTION --nocapture``: it has run, and nothing else has."""
    done = _run(loader, "--exact", function, "--nocapture")
    assert (done.returncode, "test result: ok. 1 passed; 0 failed; 0 ignored;" in done.stdout) == (0, True)
