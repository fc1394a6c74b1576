"""The command-line interface of ``shell``, ``run`` and ``rerun``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from kernel_matrix.config import project
from kernel_matrix.shared import hints
from kernel_matrix.shared.errors import ManifestError

#: runs the matrix with these arguments of pytest
Matrix = Callable[[list[str]], int]


class Commands(Protocol):
    """What argparse returns for the commands of a parser."""

    def add_parser(
        self,
        name: str,
        *,
        help: str,  # noqa: A002 - argparse's name
        usage: str,
        epilog: str,
    ) -> argparse.ArgumentParser:
        """Add a command."""


def add(commands: Commands, matrix: Matrix) -> None:
    """Add the commands."""
    _add_shell(commands)
    _add_run(commands, matrix)
    _add_rerun(commands, matrix)


def _add_shell(commands: Commands) -> None:
    shell = commands.add_parser(
        "shell",
        help="a root shell, or a command, in a guest",
        usage="%(prog)s [--carry DIR] [--cold | --gdb] (KERNEL | --enter NAME) [COMMAND...]",
        epilog="One word is a line for sh, several are a program and its arguments; its exit status is passed on.",
    )
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="KERNEL [COMMAND...]", help="such as: 6.1 uname -r")
    shell.add_argument("--carry", type=Path, metavar="DIR", help="a folder that is /carried in the guest")
    shell.add_argument("--enter", metavar="NAME", help="a guest that a run with --keep-guest keeps")
    shell.add_argument("--cold", action="store_true", help="boot the guest instead of restoring it")
    shell.add_argument("--gdb", action="store_true", help="let gdb connect to the guest's kernel, and print how")
    shell.add_argument(
        "--manifest", type=Path, metavar="DIR", help="a folder with kernels.toml and the other files of the images"
    )
    shell.add_argument("--results", type=Path, metavar="DIR", help="write its console to shell/ in this folder")
    shell.set_defaults(run=_shell)


def _add_run(commands: Commands, matrix: Matrix) -> None:
    run = commands.add_parser(
        "run",
        help="run the project on the kernels, or a command, whose exit status is each kernel's cell",
        usage="%(prog)s [--kernel NAME]... [--carry DIR] [--timeout SECONDS] [--silence SECONDS] [-- COMMAND...]",
        epilog="One word is a line for sh, several are a program and its arguments."
        " Further options are those of the matrix, which is what runs without a command.",
    )
    run.add_argument("--kernel", action="append", default=[], metavar="NAME", help="also 'core' (the default), 'full'")
    run.add_argument(
        "--carry", type=Path, metavar="DIR", help="a folder that is /carried in each guest, and the working directory"
    )
    run.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="a command that takes longer fails (default: no limit)"
    )
    run.add_argument(
        "--silence",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="a guest whose command writes nothing for so long is lost (default: 120)",
    )
    run.set_defaults(run=lambda arguments: _run(arguments, matrix), takes_more=True)


def _add_rerun(commands: Commands, matrix: Matrix) -> None:
    rerun = commands.add_parser(
        "rerun",
        help="repeat one cell of a report, each time in a fresh guest",
        usage="%(prog)s CELL [--repeat N]",
        epilog="The cell is a node id, tests/x.py::test[6.1-p], or as in results.jsonl: 6.1 'tests/x.py::test[p]'."
        " Further options are those of the matrix, such as -x.",
    )
    rerun.add_argument("cell", nargs="+", metavar="CELL")
    rerun.add_argument("--repeat", type=int, default=1, metavar="N", help="how often (default: once)")
    rerun.add_argument(
        "--manifest", type=Path, metavar="DIR", help="a folder with kernels.toml and the other files of the images"
    )
    rerun.set_defaults(run=lambda arguments: _rerun(arguments, matrix), takes_more=True)


def _shell(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands.in_guests import shell

    carried = arguments.carry.absolute() if arguments.carry else None
    here = project.find()
    words: list[str] = arguments.words
    if arguments.enter is not None:
        return shell.enter(arguments.enter, words)
    if not words:
        raise ManifestError(f"shell: which kernel? (`{hints.command('kernels')}` lists them)")
    options = shell.Options(carried, arguments.results, arguments.manifest, cold=arguments.cold, gdb=arguments.gdb)
    return shell.run(here, words[0], words[1:], options)


def _run(arguments: argparse.Namespace, matrix: Matrix) -> int:
    command: list[str] | None = arguments.command
    if command is None:
        return matrix([*(f"--kernel={name}" for name in arguments.kernel), *arguments.pytest])
    if not command:
        raise ManifestError(f"run: no command (`{hints.command('run', '[--kernel NAME]... -- COMMAND...')}`)")
    words = [f"--command={word}" for word in command]
    words += [f"--kernel={name}" for name in arguments.kernel]
    words.append(f"--silence={arguments.silence:g}")
    if arguments.timeout is not None:
        words.append(f"--command-timeout={arguments.timeout:g}")
    if arguments.carry is not None:
        words.append(f"--carry={arguments.carry.absolute()}")
    return matrix([*words, *arguments.pytest])


def _rerun(arguments: argparse.Namespace, matrix: Matrix) -> int:
    from kernel_matrix.commands.in_guests import rerun
    from kernel_matrix.config import manifest

    here = project.find()
    kernels = manifest.load(arguments.manifest or here.images).guests
    nodeid = rerun.node_id(arguments.cell, kernels)
    rerun.check(here, nodeid, kernels)
    words = ["--fresh=test", f"--repeat={arguments.repeat}"]
    if arguments.manifest is not None:
        words.append(f"--manifest={arguments.manifest}")
    return matrix([*words, *arguments.pytest, nodeid])
