"""The command ``kernel-matrix``.

Every failure the user can act on is one line on standard error and the exit status of its class
(kernel_matrix.shared.errors); there is no traceback.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from kernel_matrix.ci import command_line
from kernel_matrix.commands.in_guests import guest_commands
from kernel_matrix.commands.mutation import parser as mutants
from kernel_matrix.config import project
from kernel_matrix.shared import hints
from kernel_matrix.shared.errors import HarnessError, of_system

if TYPE_CHECKING:
    from kernel_matrix.commands.baseline_view import CommandOutput


def _build(_: argparse.Namespace) -> int:
    from kernel_matrix.commands import object_files

    for line in object_files.compile_objects():
        print(line)
    return 0


def _init(_: argparse.Namespace) -> int:
    from kernel_matrix.commands import init

    for line in init.run(Path.cwd()):
        print(line)
    return 0


def _bootstrap(arguments: argparse.Namespace) -> int:
    from kernel_matrix.dev import bootstrap

    words = [*(["--dry-run"] if arguments.dry_run else []), *(f"--with={group}" for group in arguments.groups)]
    # sessions of nox have needs of their own: a browser, tools of lint
    return bootstrap.main(words, hints.command("bootstrap", bootstrap.USAGE), bootstrap.USERS)


def _matrix(arguments: argparse.Namespace) -> int:
    import pytest

    from kernel_matrix.config import options

    here = project.find()
    words = [_relative(argument, here.root) for argument in arguments.pytest]
    # pytest looks for its root there, and guests get its arguments unchanged
    os.chdir(here.root)
    # as with `python -m pytest` there, and as in guests
    sys.path.insert(0, str(here.root))
    if {"-h", "--help"} & set(words):
        _print_options()
    return int(pytest.main([*options.leading_arguments(here), *words]))


def _matrix_of(words: list[str]) -> int:
    return _matrix(argparse.Namespace(pytest=words))


def _print_options() -> None:
    """Print the options of the matrix before pytest's help, which has them last."""
    from kernel_matrix.config import options

    usage = hints.command("matrix", "[--kernel NAME]... [any pytest argument]")
    parser = argparse.ArgumentParser(usage=usage, add_help=False, epilog="All of pytest's options work, too:")
    options.add_all(parser.add_argument_group("kernel matrix").add_argument)
    parser.print_help()
    print(flush=True)


def _relative(argument: str, root: Path) -> str:
    """Make an absolute path below the project relative: the project is in another folder in a guest."""
    path = Path(argument.partition("::")[0])
    if not path.is_absolute() or not path.is_relative_to(root):
        return argument
    return str(path.relative_to(root)) + argument[len(str(path)) :]


def _kernels(arguments: argparse.Namespace) -> int:
    from kernel_matrix.ci import workflow
    from kernel_matrix.commands import kernel_list

    if arguments.what == "prune":
        for line in kernel_list.prune():
            print(line)
        return 0
    here = project.find()
    if arguments.what == "list":
        for line in kernel_list.list_kernels(here):
            print(line)
        return 0
    for line in kernel_list.update(here):
        print(line)
    for line in workflow.update(here):
        print(line)
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands.bench import bench

    counts = bench.Counts(arguments.runs, arguments.whole, arguments.loop)
    print(bench.run(project.find(), arguments.kernel or ["core"], counts, print).read_text())
    return 0


def _soak(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands.bench import soak

    asked = soak.Asked(arguments.runs, arguments.seed, arguments.hogs, arguments.pytest)
    return soak.run(project.find(), asked, partial(print, flush=True))


def _diagnose(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands import gate, object_files

    if arguments.kernel is None:
        succeeded, text = object_files.diagnose_here(arguments.object)
        print(text)
        return 0 if succeeded else 1
    status, lines = gate.diagnose(arguments.object, arguments.kernel, _matrix_of)
    for line in lines:
        print(line)
    return status


def _capabilities(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands import capability_view
    from kernel_matrix.report.terminal import Screen

    if arguments.update:
        options = [*arguments.pytest]
        here = project.find()

        def run(words: list[str]) -> int:
            return _matrix(argparse.Namespace(pytest=[*words, *options]))

        for line in capability_view.update(here, arguments.kernel or ["core"], run, here.latest):
            print(line)
        return 0
    screen = Screen()
    for table in capability_view.show(project.find(), arguments.kernel, cells=arguments.cells):
        screen.print(table)
    return 0


def _baseline(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands import baseline_view

    here = project.find()
    results: Path = arguments.results or here.latest
    if not arguments.update:
        return _print_output(baseline_view.differences(here, results, arguments.kernel))
    if arguments.results is None:
        # without names, those of the table
        kernels = [word for name in arguments.kernel for word in ("--kernel", name)]
        status = _matrix(argparse.Namespace(pytest=kernels))
        if status not in {0, 1}:
            return status
    return _print_output(baseline_view.update(here, results, arguments.kernel))


def _compare(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands import baseline_view, object_comparison

    if (paths := object_comparison.objects(arguments.first, arguments.second)) is not None:
        return _print_output(object_comparison.compare(project.find(), *paths))
    return _print_output(baseline_view.compare(project.find(), arguments.first, arguments.second))


def _schema(_: argparse.Namespace) -> int:
    from kernel_matrix.commands import records

    print(records.schema(), end="")
    return 0


def _print_output(output: CommandOutput) -> int:
    for line in output.lines:
        print(line)
    return output.status


def _merge(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands import merging

    here = project.find()
    return merging.show(
        here, arguments.folders, arguments.results or here.results, arguments.baseline, arguments.kernel
    )


def _gate(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands import gate

    return gate.run(arguments.kernel, arguments.objects, _matrix_of, arguments.pytest)


def _compatibility(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands import compatibility

    for line in compatibility.run(
        project.find(), arguments.object, arguments.kernel, arguments.results, arguments.output
    ):
        print(line)
    return 0


def _durations(arguments: argparse.Namespace) -> int:
    from kernel_matrix.commands import records

    print(records.record_durations(project.find(), arguments.folder))
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with one line and status 4, which means bad usage everywhere in this project."""
        self.exit(4, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _add_bench(add: Callable[..., argparse.ArgumentParser]) -> None:
    bench = add("bench", help="measure the matrix against the plain way to run it")
    bench.add_argument("--kernel", action="append", metavar="NAME", help="default: core")
    bench.add_argument(
        "--runs", type=int, default=5, metavar="N", help="starts of each kind (default: 5; 0: only --whole)"
    )
    bench.add_argument("--whole", type=int, default=1, metavar="N", help="runs of everything, each way (default: 1)")
    bench.add_argument(
        "--loop", type=int, default=3, metavar="N", help="rounds of the edit loop, unchanged and edited (default: 3)"
    )
    bench.set_defaults(run=_bench)
    soak = add(
        "soak",
        help="run the tests many times in random orders, beside processes that compute (takes words of `matrix`)",
    )
    soak.add_argument("--runs", type=int, default=5, metavar="N", help="how often (default: 5)")
    soak.add_argument("--seed", type=int, default=1, metavar="N", help="the order of the first run (default: 1)")
    soak.add_argument(
        "--hogs", type=int, default=None, metavar="N", help="processes that compute (default: two for each processor)"
    )
    soak.set_defaults(run=_soak, takes_more=True)


def _add_results(add: Callable[..., argparse.ArgumentParser]) -> None:
    compare = add("compare", help="compare two result sets, two kernels of them, or two builds of an object")
    for name in ("first", "second"):
        compare.add_argument(name, help="a run's folder or 'baseline', or an object; for one kernel: FOLDER:KERNEL")
    compare.set_defaults(run=_compare)
    schema = add("schema", help="print the JSON schema of matrix.json")
    schema.set_defaults(run=_schema)
    merge = add("merge", help="join the results of all shards of a run")
    merge.add_argument("folders", nargs="+", metavar="DIR", help="a shard's results")
    merge.add_argument(
        "--results", type=Path, metavar="DIR", help="write the run's results to this folder (default: results/)"
    )
    merge.add_argument(
        "--baseline", type=Path, metavar="DIR", help="a folder with the expected outcomes (default: the project's)"
    )
    merge.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME",
        help="the planned kernels: those without a job are noted",
    )
    merge.set_defaults(run=_merge)
    durations = add("durations", help="record the durations of tests, by which shards are balanced")
    durations.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="a run's results (default: results/latest)"
    )
    durations.set_defaults(run=_durations)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(prog="kernel-matrix", description=__doc__)
    parser.set_defaults(takes_more=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    init = commands.add_parser("init", help="write a table for the objects of this folder, a test and a workflow")
    init.set_defaults(run=_init)
    build = commands.add_parser("build", help="compile the BPF objects")
    build.set_defaults(run=_build)
    bootstrap = commands.add_parser("bootstrap", help="install what the machine lacks, with its package manager")
    bootstrap.add_argument("--dry-run", action="store_true", help="only print the commands")
    bootstrap.add_argument(
        "--with", dest="groups", action="append", default=[], metavar="GROUP", help="also what GROUP needs: rust-bpf"
    )
    bootstrap.set_defaults(run=_bootstrap)
    kernels = commands.add_parser(
        "kernels", help="list the kernels and conclusions about this machine, update the lock, prune the cache"
    )
    kernels.add_argument("what", choices=["list", "update", "prune"], nargs="?", default="list")
    kernels.set_defaults(run=_kernels)
    _add_bench(commands.add_parser)
    diagnose = commands.add_parser("diagnose", help="load and attach an object's programs, and explain refusals")
    diagnose.add_argument("object", type=Path, metavar="OBJECT", help="such as build/NAME.bpf.o")
    diagnose.add_argument("--kernel", metavar="NAME", help="in a guest of this kernel (default: on this machine)")
    diagnose.set_defaults(run=_diagnose)
    capabilities = commands.add_parser("capabilities", help="show or rewrite the baseline of the capability table")
    capabilities.add_argument("--kernel", action="append", default=[], metavar="NAME", help="also 'core', 'full'")
    capabilities.add_argument("--cells", action="store_true", help="show every cell, not only the minimal sets")
    capabilities.add_argument("--update", action="store_true", help="measure in guests and rewrite the baseline")
    capabilities.set_defaults(run=_capabilities)
    baseline = commands.add_parser(
        "baseline", help="show how the last run differs from the baseline, or rewrite the baseline"
    )
    baseline.add_argument("--kernel", action="append", default=[], metavar="NAME", help="also 'core', 'full'")
    baseline.add_argument("--results", type=Path, metavar="DIR", help="a run's folder (default: results/latest)")
    baseline.add_argument("--update", action="store_true", help="rewrite it from --results, or from a new run")
    baseline.set_defaults(run=_baseline)
    _add_results(commands.add_parser)
    _add_gate(commands.add_parser)
    _add_compatibility(commands.add_parser)
    guest_commands.add(commands, _matrix_of)
    mutants.add(commands)
    command_line.add(commands.add_parser)
    matrix = commands.add_parser(
        "matrix", help="run the project's tests on the kernels (takes pytest's arguments)", add_help=False
    )
    matrix.set_defaults(run=_matrix, takes_more=True)
    return parser


def _add_gate(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    gate = add_parser(
        "gate", help="run objects on the kernels as test files: each program is loaded, attached and measured"
    )
    gate.add_argument("--kernel", action="append", default=[], metavar="NAME", help="also 'core' (the default), 'full'")
    gate.add_argument("objects", type=Path, nargs="+", metavar="OBJECT")
    gate.set_defaults(run=_gate, takes_more=True)


def _add_compatibility(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    compatibility = add_parser("compatibility", help="show what an object needs, and what each kernel has of it")
    compatibility.add_argument("object", type=Path, metavar="OBJECT", help="such as build/NAME.bpf.o")
    compatibility.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME",
        help="also 'core', 'full'; its image is fetched (default: all whose images are here)",
    )
    compatibility.add_argument(
        "--results", type=Path, metavar="DIR", help="a run's folder: add what it measured of this object"
    )
    compatibility.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write HTML, Markdown, JSON and a badge there (default: print Markdown)",
    )
    compatibility.set_defaults(run=_compatibility)


def main() -> int:
    """Run one command; where nobody reads its output any more, end without a word, as if SIGPIPE had killed it."""
    try:
        try:
            return _main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # what is left in the buffer is written when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _is_read() -> bool:
    """Whether standard output is not a pipe whose reader has gone."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return not any(events & select.POLLERR for _, events in poll.poll(0))


def _main() -> int:
    words = sys.argv[1:]
    command: list[str] | None = None
    if words[:1] == ["run"] and "--" in words:
        # the words after -- are the user's command
        command = words[words.index("--") + 1 :]
        words = words[: words.index("--")]
    arguments, rest = parser().parse_known_args(words)
    arguments.command = command
    takes_more = arguments.takes_more or (arguments.run is _capabilities and arguments.update)
    if rest and not takes_more:
        print(f"kernel-matrix: unknown arguments: {' '.join(rest)}", file=sys.stderr)
        return 4
    arguments.pytest = rest
    try:
        status: int = arguments.run(arguments)
    except HarnessError as error:
        print(f"kernel-matrix: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not _is_read():
            raise
        failure = of_system(error)
        print(f"kernel-matrix: {failure}", file=sys.stderr)
        return failure.exit_status
    except KeyboardInterrupt:
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
