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

from harness import working
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say it in one line; 4 is the status of bad usage everywhere in this project."""
        self.exit(4, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="harness", description=__doc__)
    parser.set_defaults(takes_more=False)
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
    working.add(commands, lambda words: _matrix(argparse.Namespace(pytest=words)))
    matrix = commands.add_parser(
        "matrix", help="run the suites on the kernels (takes pytest's arguments)", add_help=False
    )
    matrix.set_defaults(run=_matrix, takes_more=True)
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
    takes_more = arguments.takes_more or (arguments.run is _capabilities and arguments.update)
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
