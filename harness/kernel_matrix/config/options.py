"""The matrix's options: pytest's, and the beginning of ``matrix --help``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

from kernel_matrix.shared.project import Project


def own_arguments(project: Project) -> tuple[str, ...]:
    """Return what a run of the matrix has before the user's arguments.

    pytest takes every folder among those, an option's value too, for a place of tests: it would look for its root
    there. Relative, because guests get it too. Importing Hypothesis takes 0.3 s, and no guest has it.
    """
    return (
        *("-p", "kernel_matrix.plugin", "--matrix", *project.pytest_options),
        *("-o", f"testpaths={shlex.join(project.tests)}", "-p", "no:hypothesispytest"),
    )


def rehearsal(project: Project) -> tuple[str, ...]:
    """Return the words of a pytest in a guest that has the project but its test files: it imports the conftests."""
    return (
        *("-p", "kernel_matrix.plugin", *project.pytest_options, "-p", "no:cacheprovider"),
        *("--collect-only", "-qq", *project.tests),
    )


def add_matrix(add: Callable[..., object]) -> None:
    """Add the option that the others go with."""
    add("--matrix", action="store_true", help="run the tests inside the guests of the kernel matrix, not here")


def add_all(add: Callable[..., object]) -> None:
    """Add them by that function: pytest's, or argparse's for a help that begins with them."""
    add(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME",
        help="a kernel of kernels.toml, 'core' (the default) or 'full'; may be repeated",
    )
    add(
        "--shard",
        default=None,
        metavar="I/N",
        help="run only part I of N of the test files on the kernels; `merge` joins the parts' results",
    )
    add(
        "--guests",
        type=int,
        default=None,
        metavar="N",
        help="how many guests run at once (default: from the machine's cores and free memory)",
    )
    add(
        "--hosts",
        default=None,
        metavar="USER@NAME[:DIR],...",
        help="run the guests on these machines, reached by ssh, each with this project in DIR (default: as here)",
    )
    add(
        "--locked",
        action="store_true",
        help="fail when the mirror no longer has a kernel package of the lock, instead of taking the newest",
    )
    add(
        "--silence",
        type=float,
        default=None,
        metavar="SECONDS",
        help="a guest that says nothing for so long is lost (default: scaled by its measured speed)",
    )
    add(
        "--test-timeout",
        type=float,
        default=None,
        metavar="SECONDS",
        help="a test whose set-up, call or teardown takes longer fails (default: scaled by the guest; 0: never)",
    )
    add(
        "--boot-timeout",
        type=float,
        default=None,
        metavar="SECONDS",
        help="a guest that is not ready after so long is lost (default: 60 with KVM, 240 emulated)",
    )
    add(
        "--fresh",
        choices=["kernel", "file", "test"],
        default="kernel",
        help="how often a guest that nothing has run in is used (default: kernel)",
    )
    add(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="run each test N times (default: 1); with --fresh test each time in another guest",
    )
    add(
        "--keep-guest",
        action="store_true",
        help="stop at the first failure, with its guest as it is, and say how to enter it",
    )
    add("--gdb", action="store_true", help="with --keep-guest: let gdb connect to the guest's kernel, and say how")
    add(
        "--pcap",
        action="store_true",
        help="keep what went over the veth pairs of a failing test: pcap/<kernel>/<test>.pcap of the results",
    )
    add(
        "--cold",
        action="store_true",
        help="boot every guest instead of restoring it from the snapshot of an earlier boot",
    )
    add(
        "--ask-again",
        action="store_true",
        help="try again at once what an earlier run concluded from a time-out: that KVM, or saving a guest, is no use",
    )
    add(
        "--carry",
        type=Path,
        default=None,
        metavar="DIR",
        help="a folder that is /carried in every guest",
    )
    # of `run`: a word of the command each, and the seconds it may take
    add("--command", action="append", default=[], help=argparse.SUPPRESS)
    add("--command-timeout", type=float, default=None, help=argparse.SUPPRESS)
    add(
        "--manifest",
        type=Path,
        default=None,
        metavar="DIR",
        help="a folder of kernels.toml and its like (default: the project's)",
    )
    add(
        "--baseline",
        type=Path,
        default=None,
        metavar="DIR",
        help="what the matrix is expected to find (default: matrix/ of the project's baselines)",
    )
    add(
        "--results",
        type=Path,
        default=None,
        metavar="DIR",
        help="where the run's results go (default: results/ of the project)",
    )
