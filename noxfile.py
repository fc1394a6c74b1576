"""The project's commands: ``nox -s bootstrap kernel-matrix``, ``nox -s tests``, ``nox -s lint``, ..."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT / "harness"), str(ROOT / "harness" / "tools")]
if sys.version_info < (3, 11):  # noqa: UP036 - nox itself may run on an older one
    sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")

import actionlint  # noqa: E402 - nox's own environment has nothing of the project

from kernel_matrix.dev import bootstrap as machine  # noqa: E402
from kernel_matrix.shared import hints  # noqa: E402

# makes messages name commands as `nox -s NAME`
os.environ[hints.NOX_VARIABLE] = "1"
# nox makes no environment here: it does not matter that uv is missing
logging.getLogger("nox").addFilter(lambda record: record.getMessage() != "uv binary not found.")
nox.options.sessions = ["kernel-matrix"]
nox.needs_version = ">=2024.4.15"

#: one environment for all sessions, kept between runs
ENVIRONMENT = ROOT / ".nox" / "harness"
LOCK = ROOT / "requirements" / "host.txt"
#: the project of objects that others have written
CORPUS = ROOT / "tests" / "corpus"
#: seconds that a run has to end its guests after Ctrl-C
SECONDS_TO_END = 15.0


def python(session: nox.Session, *groups: str) -> str:
    """Return the Python of the locked environment; fail first if the machine lacks what the groups need."""
    lacking = machine.missing(groups)
    if lacking:
        session.error(machine.explain(session.name, lacking, machine.family(), hints.command("bootstrap")))
    interpreter = str(ENVIRONMENT / "bin" / "python")
    stamp = ENVIRONMENT / "locked"
    state = hashlib.sha256(f"{sys.version}{ROOT}".encode())
    for path in (LOCK, ROOT / "pyproject.toml"):
        state.update(path.read_bytes())
    key = state.hexdigest()
    if not stamp.exists() or stamp.read_text() != key:
        session.log("installing the locked environment")
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        pip = (interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        session.run(*pip, "--no-deps", "--require-hashes", "-r", str(LOCK), external=True)
        # the engine as a user installs it, but editable
        session.run(*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT), external=True)
        stamp.write_text(key)
    return interpreter


def run(session: nox.Session, *command: str, folder: Path = ROOT) -> None:
    """Run a command there and exit nox with its exit status, which says more than whether it failed.

    ``session.run`` makes every failure a 1, and kills a command 0.3 s after Ctrl-C: a run ends its guests first.
    """
    session.log(shlex.join(command))
    # bytecode is cached even where the user wants none beside the sources
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(ENVIRONMENT / "pycache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with subprocess.Popen(command, cwd=folder, env=environment) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the command got it too
            status = process.wait(SECONDS_TO_END)
    if status != 0:
        sys.exit(status if status > 0 else 128 - status)


#: sessions that are commands of the engine: what each does, and the groups of programs that it needs
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "kernel-matrix": (
        "Run the suites on the kernels (-- [--kernel NAME]... [any pytest argument]).",
        ("build", "matrix"),
    ),
    "build": (
        "Compile the BPF objects.",
        ("build",),
    ),
    "merge": (
        "Join the results of all shards of a run (-- DIR... [--results DIR]).",
        (),
    ),
    "durations": (
        "Record the durations of a run's tests, by which shards are balanced (-- [DIR]).",
        (),
    ),
    "compare": (
        "Compare two result sets, kernels, or builds of an object (-- results/A results/B, -- A.bpf.o B.bpf.o).",
        (),
    ),
    "shell": (
        "Open a root shell in a guest (-- KERNEL), or run a command there (-- KERNEL COMMAND...).",
        ("build", "matrix"),
    ),
    "run": (
        "Run a command on the kernels (-- [--kernel NAME]... [--carry DIR] -- COMMAND...).",
        ("build", "matrix"),
    ),
    "rerun": (
        "Repeat one cell, each time in a fresh guest (-- CELL [--repeat N]).",
        ("build", "matrix"),
    ),
    "bench": (
        "Measure the matrix against the plain way to run it (-- [--kernel NAME]... [--runs N] [--whole N]).",
        ("build", "matrix"),
    ),
    "kernels": (
        "List the kernels (-- update: rewrite their lock; -- prune: saved guests within 8 GiB, no unused image).",
        ("matrix",),
    ),
    "gate": (
        "Run objects on the kernels as test files (-- [--kernel NAME]... OBJECT...).",
        ("build", "matrix"),
    ),
    "compatibility": (
        "Show what an object needs, and what each kernel has of it (-- OBJECT [--results DIR] [--output DIR]).",
        ("build",),
    ),
    "mutants": (
        "Break the programs in many ways, and see that a test notices each (-- [--kernel NAME]... [--sample N]).",
        ("build", "matrix"),
    ),
    "workflow": (
        "Write GitHub's workflow from the manifest (-- --check: only check that it is up to date).",
        (),
    ),
}


def add(name: str, meaning: str, groups: tuple[str, ...]) -> None:
    """Add the session of a command."""

    def command(session: nox.Session) -> None:
        words = ["matrix" if name == "kernel-matrix" else name, *session.posargs]
        run(session, python(session, *groups), "-m", "kernel_matrix", *words)

    command.__doc__ = meaning
    nox.session(name=name, venv_backend="none")(command)


for _name, _command in COMMANDS.items():
    add(_name, *_command)


@nox.session(venv_backend="none")
def bootstrap(session: nox.Session) -> None:
    """Install what the machine lacks, with its package manager (-- [--with GROUP]... [--dry-run: only print how])."""
    status = machine.main(session.posargs, hints.command("bootstrap", machine.USAGE))
    if status:
        sys.exit(status)


@nox.session(venv_backend="none")
def capabilities(session: nox.Session) -> None:
    """Show the recorded capability table (-- [--kernel NAME]... [--cells]; --update: measure and rewrite it)."""
    groups = ["build", "matrix"] if "--update" in session.posargs else []
    run(session, python(session, *groups), "-m", "kernel_matrix", "capabilities", *session.posargs)


@nox.session(venv_backend="none")
def baseline(session: nox.Session) -> None:
    """Show how the last run differs (-- [--kernel NAME]... [--results DIR]); --update: run and rewrite it."""
    groups = ["build", "matrix"] if "--update" in session.posargs and "--results" not in session.posargs else []
    run(session, python(session, *groups), "-m", "kernel_matrix", "baseline", *session.posargs)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the harness's own tests (no VM, no root), then a smoke run of the matrix on one kernel."""
    interpreter = python(session, "build", "matrix", "tests", "report")
    with_guests = [f"--ignore=tests/{name}" for name in ("faults", "foreign", "hosts", "soak")]
    at_once = ["-n2", "--dist=worksteal"]
    run(session, interpreter, "-m", "pytest", *at_once, *with_guests, *session.posargs)
    if not session.posargs:
        run(session, interpreter, "-m", "kernel_matrix", "matrix", "--kernel", "6.1", "suites/features")


@nox.session(venv_backend="none")
def faults(session: nox.Session) -> None:
    """Break guests on purpose: panics, hangs, kills, boots that fail (with VMs)."""
    run(
        session,
        python(session, "build", "matrix", "tests"),
        "-m",
        "pytest",
        "-n2",
        "--dist=loadfile",
        "--durations=12",
        "tests/faults",
        *session.posargs,
    )


@nox.session(venv_backend="none")
def foreign(session: nox.Session) -> None:
    """Build projects of others that are compiled for long, and go from init to a caught mistake (with VMs)."""
    run(session, python(session, "build", "matrix", "tests"), "-m", "pytest", "tests/foreign", *session.posargs)


@nox.session(venv_backend="none")
def corpus(session: nox.Session) -> None:
    """Run the objects of Debian's packages on the kernels (-- --update: lock the newest; or options of the matrix)."""
    interpreter = python(session, "build", "matrix")
    update = [word for word in session.posargs if word == "--update"]
    rest = [word for word in session.posargs if word != "--update"]
    run(session, interpreter, str(ROOT / "harness" / "tools" / "corpus.py"), str(CORPUS), *update)
    run(session, interpreter, "-m", "kernel_matrix", "matrix", *rest, folder=CORPUS)


@nox.session(venv_backend="none")
def hosts(session: nox.Session) -> None:
    """Run guests over ssh in separate namespaces of this machine, and kill them (with VMs, root and sshd)."""
    run(session, python(session, "build", "matrix", "tests"), "-m", "pytest", "tests/hosts", *session.posargs)


@nox.session(venv_backend="none")
def soak(session: nox.Session) -> None:
    """Restore every core kernel a hundred times, then run the matrix in random orders beside busy processes (with VMs).

    With words: only the latter, such as -- --runs 20 --kernel 6.1 suites/xdp.
    """
    interpreter = python(session, "build", "matrix")
    if not session.posargs:
        run(session, interpreter, "-m", "pytest", "tests/soak", "-rP")
    run(session, interpreter, "-m", "kernel_matrix", "soak", *session.posargs)


@nox.session(name="harness-mutants", venv_backend="none")
def harness_mutants(session: nox.Session) -> None:
    """Break the harness's own decisions, and see that a test notices each mutant (-- [MODULE]... [--sample N])."""
    run(session, python(session), "harness/tools/harness_mutants.py", *session.posargs)


@nox.session(venv_backend="none")
def structure(session: nox.Session) -> None:
    """Show the rooms of the harness and their imports; fail where there are too many, or a cycle."""
    run(session, python(session), "harness/tools/structure.py", *session.posargs)


def build_site(session: nox.Session, interpreter: str) -> None:
    """Build the site of docs/; a broken link or anchor is an error."""
    site = ["--site-dir", str(ENVIRONMENT.parent / "site")]
    run(session, interpreter, "-m", "mkdocs", "build", "--quiet", "--config-file", "harness/tools/mkdocs.yml", *site)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Build the pages of docs/ as a site in .nox/site; a broken link fails (-- --check: write no page)."""
    interpreter = python(session)
    check = session.posargs == ["--check"]
    if session.posargs and not check:
        session.error("docs takes --check only")
    for page in ("commands_page", "loaders_page"):
        run(session, interpreter, f"harness/tools/{page}.py", *session.posargs)
    build_site(session, interpreter)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check the code: ruff, mypy, import-linter, clang-format, clippy, go vet, shellcheck, actionlint, zizmor."""
    if session.posargs:
        print(f"usage: nox -s lint\n\n{lint.__doc__}")
        if session.posargs == ["--help"]:
            return
        sys.exit(4)
    interpreter = python(session, "build", "lint")
    tools = Path(interpreter).parent
    run(session, str(tools / "ruff"), "check", ".")
    run(session, str(tools / "ruff"), "format", "--check", ".")
    run(session, str(tools / "mypy"))
    # the host's half again, for the oldest Python that it runs on; the guest's half has a newer one
    host = ["--python-version", "3.11", "--follow-imports", "silent", "--exclude", "harness/kernel_matrix/guest/"]
    run(session, str(tools / "mypy"), *host, "harness/kernel_matrix", "noxfile.py")
    run(session, str(tools / "lint-imports"))
    run(session, interpreter, "harness/tools/structure.py")
    run(session, interpreter, "harness/tools/loaders_page.py", "--check")
    build_site(session, interpreter)
    sources = sorted(str(path) for folder in ("bpf", "harness") for path in (ROOT / folder).rglob("*.[ch]"))
    run(session, "clang-format", "--style=file:bpf/.clang-format", "--dry-run", "-Werror", *sources)
    run(session, interpreter, "harness/tools/loader_checks.py", str(ENVIRONMENT.parent / "loaders"))
    scripts = [
        *ROOT.glob(".ci/*"),
        *ROOT.glob(".github/actions/*/run"),
        *ROOT.glob("harness/kernel_matrix/relay/tools/*"),
    ]
    scripts += ROOT.glob("vmimages/mount.*")
    run(session, "shellcheck", *sorted(str(path.relative_to(ROOT)) for path in scripts))
    try:
        program = actionlint.build(ROOT, interpreter, ENVIRONMENT.parent)
    except machine.BootstrapError as error:
        session.error(str(error))
    # with file names: without them actionlint looks for a git repository
    run(session, str(program), *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(".github/workflows/*.yml")))
    zizmor = ["--offline", "--no-progress", "--quiet", "--strict-collection", "--pedantic"]
    run(session, str(tools / "zizmor"), *zizmor, ".github")
