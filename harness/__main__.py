"""``python -m harness``: the commands behind the nox sessions.

Every failure the user can act on is one line on standard error and the exit status of its class
(harness.errors); there is no traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from harness.errors import HarnessError, ManifestError, of_system

ROOT = Path(__file__).resolve().parent.parent


def _build(_: argparse.Namespace) -> int:
    from harness import objects

    for name, path in sorted(objects.build_all().items()):
        print(f"{name}: {path.relative_to(ROOT)}")
    return 0


def _matrix(arguments: argparse.Namespace) -> int:
    import pytest

    # the relays are started as modules of the project
    os.chdir(ROOT)
    given = [_relative(argument) for argument in arguments.pytest]
    if {"-h", "--help"} & set(given):
        _print_options()
    # pytest takes every folder among the arguments, an option's value too, for a place of tests: it would look for
    # its root there, and for the conftest.py that knows the options; relative, because guests get it too
    own = ["-p", "harness.plugin", "--matrix", "-c", "pyproject.toml", "-o", "testpaths=suites"]
    return int(pytest.main([*own, *given]))


def _print_options() -> None:
    """Begin the help with the matrix's own options: in pytest's they come last."""
    from harness import options

    usage = "nox -s kernel-matrix -- [--kernel NAME]... [any pytest argument]"
    parser = argparse.ArgumentParser(usage=usage, add_help=False, epilog="All of pytest's options work, too:")
    options.add_all(parser.add_argument_group("kernel matrix").add_argument)
    parser.print_help()
    print(flush=True)


def _run(arguments: argparse.Namespace) -> int:
    command: list[str] = arguments.command
    if not command:
        raise ManifestError("run: no command (nox -s run -- [--kernel NAME]... -- COMMAND...)")
    words = [f"--command={word}" for word in command]
    words += [f"--kernel={name}" for name in arguments.kernel]
    words.append(f"--silence={arguments.silence:g}")
    if arguments.timeout is not None:
        words.append(f"--command-timeout={arguments.timeout:g}")
    if arguments.carry is not None:
        words.append(f"--carry={arguments.carry.absolute()}")
    return _matrix(argparse.Namespace(pytest=[*words, *arguments.pytest]))


def _rerun(arguments: argparse.Namespace) -> int:
    from harness import manifest, rerun

    if arguments.repeat < 1:
        raise ManifestError(f"--repeat {arguments.repeat}: once is the least")
    kernels = manifest.load(arguments.manifest or ROOT / "vmimages").guests
    nodeid = _relative(rerun.node_id(arguments.cell, kernels))
    rerun.check(ROOT, nodeid, kernels)
    words = ["--fresh=test", f"--repeat={arguments.repeat}"]
    if arguments.manifest is not None:
        words.append(f"--manifest={arguments.manifest}")
    return _matrix(argparse.Namespace(pytest=[*words, *arguments.pytest, nodeid]))


def _relative(argument: str) -> str:
    """Make an absolute path below the project relative: it has another place in a guest."""
    path = Path(argument.partition("::")[0])
    if not path.is_absolute() or not path.is_relative_to(ROOT):
        return argument
    return str(path.relative_to(ROOT)) + argument[len(str(path)) :]


def _kernels(arguments: argparse.Namespace) -> int:
    from harness import images, manifest, snapshots

    known = manifest.load(ROOT / "vmimages")
    if arguments.what == "update":
        for line in images.update_lock(known):
            print(line)
    elif arguments.what == "prune":
        folder = images.cache_dir() / "snapshots"
        deleted = snapshots.prune(folder)
        print(f"{len(deleted)} saved guests deleted; {snapshots.describe(folder)}")
    else:
        for kernel in known.kernels:
            print(f"{kernel.name:10} {kernel.tier:9} {kernel.provider}")
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from harness import bench

    os.chdir(ROOT)
    print(bench.run(ROOT, arguments.kernel or ["core"], arguments.runs, arguments.whole, print).read_text())
    return 0


def _diagnose(arguments: argparse.Namespace) -> int:
    path: Path = arguments.object.absolute()
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ManifestError(f"{arguments.object}: {error.strerror}") from error
    if magic != b"\x7fELF":
        raise ManifestError(f"{arguments.object}: not an object file")
    if arguments.kernel:
        from harness import errand

        os.chdir(ROOT)
        answers = errand.diagnose(ROOT, arguments.kernel, path)
    else:
        from harness.guest import trying

        answers = iter([trying.report(path)])
    status = 0
    for well, text in answers:
        print(text)
        status = status if well else 1
    return status


def _capabilities(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from harness import capability_view

    if arguments.update:
        given = [*arguments.pytest]

        def run(words: list[str]) -> int:
            return _matrix(argparse.Namespace(pytest=[*words, *given]))

        for line in capability_view.update(ROOT, arguments.kernel or ["core"], run, ROOT / "results" / "latest"):
            print(line)
        return 0
    screen = Console()
    for table in capability_view.show(ROOT, arguments.kernel, cells=arguments.cells):
        screen.print(table)
    return 0


def _shell(arguments: argparse.Namespace) -> int:
    from harness import shell

    carried = arguments.carry.absolute() if arguments.carry else None
    os.chdir(ROOT)
    words: list[str] = arguments.words
    if arguments.enter is not None:
        return shell.enter(arguments.enter, words)
    if not words:
        raise ManifestError("shell: which kernel? (nox -s kernels lists them)")
    options = shell.Options(carried, arguments.results, arguments.manifest, cold=arguments.cold, gdb=arguments.gdb)
    return shell.run(ROOT, words[0], words[1:], options)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say it in one line; 4 is the status of bad usage everywhere in this project."""
        self.exit(4, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    run = commands.add_parser(
        "run",
        help="run a command on the kernels; its exit status is each kernel's cell",
        usage="%(prog)s [--kernel NAME]... [--carry DIR] [--timeout SECONDS] [--silence SECONDS] -- COMMAND...",
        epilog="One word is a line for sh, several are a program and its arguments. Further options are the matrix's.",
    )
    run.add_argument("--kernel", action="append", default=[], metavar="NAME", help="also 'core' (the default), 'full'")
    run.add_argument("--carry", type=Path, metavar="DIR", help="a folder: /carried in each guest, where it runs")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="what takes longer fails (default: no limit)")
    run.add_argument(
        "--silence",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="a guest whose command says nothing for so long is lost (default: 120)",
    )
    run.set_defaults(run=_run)


def _add_rerun(commands: argparse._SubParsersAction[_Parser]) -> None:
    rerun = commands.add_parser(
        "rerun",
        help="repeat one cell of a report, each time in a fresh guest",
        epilog="The cell is a node id, suites/x.py::test[6.1-p], or as in results.jsonl: 6.1 'suites/x.py::test[p]'."
        " Further options are the matrix's, such as -x.",
    )
    rerun.add_argument("cell", nargs="+", metavar="CELL")
    rerun.add_argument("--repeat", type=int, default=1, metavar="N", help="how often (default: once)")
    rerun.add_argument("--manifest", type=Path, metavar="DIR", help="a folder like vmimages/")
    rerun.set_defaults(run=_rerun)


def _add_shell(commands: argparse._SubParsersAction[_Parser]) -> None:
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
    shell.add_argument("--gdb", action="store_true", help="let gdb connect to the guest's kernel, and say how")
    shell.add_argument("--manifest", type=Path, metavar="DIR", help="a folder like vmimages/")
    shell.add_argument("--results", type=Path, metavar="DIR", help="where its console goes, in shell/ there")
    shell.set_defaults(run=_shell)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="harness", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="compile the BPF objects")
    build.set_defaults(run=_build)
    kernels = commands.add_parser("kernels", help="list the kernels, update their lock, prune the saved guests")
    kernels.add_argument("what", choices=["list", "update", "prune"], nargs="?", default="list")
    kernels.set_defaults(run=_kernels)
    bench = commands.add_parser("bench", help="measure the matrix against the plain way to run it")
    bench.add_argument("--kernel", action="append", metavar="NAME", help="default: core")
    bench.add_argument("--runs", type=int, default=5, metavar="N", help="starts of each kind (default: 5)")
    bench.add_argument("--whole", type=int, default=1, metavar="N", help="runs of everything, each way (default: 1)")
    bench.set_defaults(run=_bench)
    diagnose = commands.add_parser("diagnose", help="load and attach an object's programs, and explain what is refused")
    diagnose.add_argument("object", type=Path, metavar="OBJECT", help="such as build/kprobe_execve.bpf.o")
    diagnose.add_argument("--kernel", metavar="NAME", help="in a guest of this kernel (default: on this machine)")
    diagnose.set_defaults(run=_diagnose)
    capabilities = commands.add_parser("capabilities", help="show or rewrite the baseline of the capability table")
    capabilities.add_argument("--kernel", action="append", default=[], metavar="NAME", help="also 'core', 'full'")
    capabilities.add_argument("--cells", action="store_true", help="show every cell, not only the minimal sets")
    capabilities.add_argument("--update", action="store_true", help="measure in guests and rewrite the baseline")
    capabilities.set_defaults(run=_capabilities)
    _add_run(commands)
    _add_rerun(commands)
    _add_shell(commands)
    matrix = commands.add_parser(
        "matrix", help="run the suites on the kernels (takes pytest's arguments)", add_help=False
    )
    matrix.set_defaults(run=_matrix)
    return parser


def main() -> int:
    """Run one command."""
    words, command = sys.argv[1:], []
    if words[:1] == ["run"] and "--" in words:
        # what is behind it is none of ours
        command = words[words.index("--") + 1 :]
        words = words[: words.index("--")]
    arguments, rest = _parser().parse_known_args(words)
    arguments.command = command
    takes_more = arguments.run in {_matrix, _run, _rerun} or (arguments.run is _capabilities and arguments.update)
    if rest and not takes_more:
        print(f"harness: unknown arguments: {' '.join(rest)}", file=sys.stderr)
        return 4
    arguments.pytest = rest
    try:
        status: int = arguments.run(arguments)
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        failure = of_system(error)
        print(f"harness: {failure}", file=sys.stderr)
        return failure.exit_status
    except KeyboardInterrupt:
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
