"""The options of the matrix, for pytest and for ``matrix --help``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

from kernel_matrix.shared.project import Project


def leading_arguments(project: Project) -> tuple[str, ...]:
    """Return pytest's arguments that a run of the matrix has before the user's.

    pytest takes every folder among its arguments, even an option's value, for a folder of tests and looks for its root
    there. Paths are relative, because guests get them, too. Importing Hypothesis's plugin takes
    0.3 s, and tests that use Hypothesis do not need it.
    """
    paths = shlex.join((*project.tests, *project.objects, *project.command_files))
    return (
        *("-p", "kernel_matrix.plugin", "--matrix", *project.pytest_options),
        *("-o", f"testpaths={paths}", "-p", "no:hypothesispytest"),
    )


def rehearsal_arguments(project: Project) -> tuple[str, ...]:
    """Return the arguments of a pytest in a guest with the project but no test files: it imports the conftests."""
    return (
        *("-p", "kernel_matrix.plugin", *project.pytest_options, "-p", "no:cacheprovider"),
        *("--collect-only", "-qq", *project.tests),
    )


def add_matrix(add: Callable[..., object]) -> None:
    """Add the option that starts the matrix: all others need it."""
    add("--matrix", action="store_true", help="run the tests inside the guests of the kernel matrix, not here")


def add_all(add: Callable[..., object]) -> None:
    """Add all other options; ``add`` is pytest's function, or argparse's for the help."""
    add(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME",
        help="a kernel of kernels.toml, 'core' (the default) or 'full'; may be repeated",
    )
    add(
        "--loader",
        action="append",
        default=[],
        metavar="NAME",
        help="run tests that load objects with this loader only; may be repeated (default: the table's `loaders`)",
    )
    add(
        "--require-loader",
        action="append",
        default=[],
        metavar="NAME",
        help="fail, before anything boots, when this machine lacks what that loader takes; may be repeated",
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
        help="a guest that sends nothing for so long is lost (default: scaled by its measured speed)",
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
        help="start a fresh guest for each kernel, test file or test (default: kernel)",
    )
    add(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="run each test N times (default: 1); with --fresh test each time in another guest",
    )
    add(
        "--order",
        type=int,
        default=None,
        metavar="SEED",
        help="run folders, files and tests in the random order of this seed (default: as they are written)",
    )
    add(
        "--keep-guest",
        action="store_true",
        help="stop at the first failure, keep its guest as it is, and print how to enter it",
    )
    add("--gdb", action="store_true", help="with --keep-guest: let gdb connect to the guest's kernel, and print how")
    add(
        "--pcap",
        action="store_true",
        help="keep the packets on the veth pairs of a failing test: pcap/<kernel>/<test>.pcap of the results",
    )
    add(
        "--cold",
        action="store_true",
        help="boot every guest instead of restoring it from the snapshot of an earlier boot",
    )
    add(
        "--ask-again",
        action="store_true",
        help="ignore what earlier runs concluded from time-outs, such as that KVM or saving guests does not work",
    )
    add(
        "--carry",
        type=Path,
        default=None,
        metavar="DIR",
        help="a folder that is /carried in every guest",
    )
    # for `run`: one option for each word of the command, and the seconds that the command may take
    add("--command", action="append", default=[], help=argparse.SUPPRESS)
    add("--command-timeout", type=float, default=None, help=argparse.SUPPRESS)
    add(
        "--manifest",
        type=Path,
        default=None,
        metavar="DIR",
        help="a folder with kernels.toml and the other files of the images (default: the project's)",
    )
    add(
        "--baseline",
        type=Path,
        default=None,
        metavar="DIR",
        help="a folder with the expected outcomes (default: matrix/ of the project's baselines)",
    )
    add(
        "--results",
        type=Path,
        default=None,
        metavar="DIR",
        help="write the run's results to this folder (default: results/ of the project)",
    )
