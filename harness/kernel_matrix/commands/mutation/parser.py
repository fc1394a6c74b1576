"""The command-line interface of ``mutants``; it imports nothing of what the command does."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Protocol

from kernel_matrix.config import project


@dataclass(frozen=True, slots=True)
class Options:
    """The command's options."""

    kernels: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    sample: int | None = None
    seed: int = 0
    mistakes: bool = False
    guests: int | None = None
    update: bool = False
    new: bool = False
    tests: bool = False


class Commands(Protocol):
    """What argparse returns for the commands of a parser."""

    def add_parser(self, name: str, *, help: str) -> argparse.ArgumentParser:  # noqa: A002 - argparse's name
        """Add a command."""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("mutants", help="break the programs in many ways, and see that a test notices each")
    parser.add_argument("--kernel", action="append", default=[], metavar="NAME", help="also 'core' (the default)")
    parser.add_argument("--program", action="append", default=[], metavar="NAME", help="only mutants of this program")
    parser.add_argument("--mutant", action="append", default=[], metavar="ID", help="only this mutant")
    parser.add_argument("--mistakes", action="store_true", help="only the list of mistakes, no generated mutants")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, chosen at random")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random choice (default: 0)")
    parser.add_argument("--guests", type=int, metavar="N", help="how many guests run at once")
    parser.add_argument("--new", action="store_true", help="only those that the record does not have")
    parser.add_argument("--update", action="store_true", help="write each outcome to the record as soon as it is known")
    parser.add_argument(
        "--tests",
        action="store_true",
        help="only the tests that the records do not name, each mutant to the end: which of them notice any",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    chosen = Options(
        tuple(arguments.kernel),
        tuple(arguments.program),
        tuple(arguments.mutant),
        arguments.sample,
        arguments.seed,
        arguments.mistakes,
        arguments.guests,
        arguments.update,
        arguments.new,
        arguments.tests,
    )
    from kernel_matrix.commands.mutation import command

    return command.run(project.find(), chosen, lambda line: print(line, flush=True))
