"""Guests on other machines: the same results, and a machine that dies costs its cells (with guests).

The machines are made here: namespaces of their own for network, mounts and processes, an sshd in each, a copy of the
project, which is hidden where it really is. Nothing of this machine is changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel_matrix.report.run_folder import RunRecord
from kernel_matrix.results import document
from kernel_matrix.shared import wire
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from tests.result_sets import read_cells

ROOT = Path(__file__).resolve().parents[2]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
#: two loaders: one in the process, and one whose program is carried to the guests
RUN = (
    "--kernel",
    "6.1",
    "--kernel",
    "5.10",
    "--loader",
    "libbpf",
    "--loader",
    "aya",
    "suites/features",
    "suites/execve",
)
#: far more than it takes on a machine that does ten other things
LIMIT = 900.0


@pytest.fixture(autouse=True, scope="session")
def what_it_takes() -> None:
    """Say in a line what is missing: a session that is asked for by name skips nothing."""
    if SSHD is None:
        pytest.fail("sshd is missing (package openssh-server)", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("sshd and namespaces of its own take root", pytrace=False)


_CONFIG = """
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
PidFile none
{environment}
"""
#: hands ssh a connection that was made in the machine's network (ssh_config: ProxyUseFdpass)
_CONNECT = """
import socket, time
end = time.monotonic() + 30
while True:
    try:
        made = socket.create_connection(("127.0.0.1", 22))
        break
    except ConnectionRefusedError:
        assert time.monotonic() < end
socket.send_fds(socket.socket(fileno=1), [b"\\0"], [made.fileno()])
"""
_SSH = """
Host {name}
  HostName 127.0.0.1
  User root
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  ProxyCommand nsenter --target {init} --net {python} {folder}/connect.py
  ProxyUseFdpass yes
"""


@dataclass(frozen=True)
class Machine:
    """Another machine."""

    name: str
    folder: Path
    #: its first process, as this machine numbers it
    init: int

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def host(self) -> str:
        return f"-F {self.folder}/config {self.name}:{self.project}"

    def die(self) -> None:
        """Kill everything on it, as switching it off does."""
        os.kill(self.init, signal.SIGKILL)


def _keys(folder: Path) -> None:
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "known").write_text(f"127.0.0.1 {(folder / 'host.pub').read_text()}")


def _copy_project(folder: Path) -> None:
    """Copy the project as a clone has it, with what is not committed yet."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (path := ROOT / name).is_symlink() or path.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name, follow_symlinks=False)
    (folder / ".nox").symlink_to((ROOT / ".nox").resolve())


def _begin(folder: Path) -> subprocess.Popen[bytes]:
    """Start the machine's first process: it makes the machine what it is and becomes the sshd."""
    cache = os.environ.get("KERNEL_MATRIX_CACHE")
    # its temporary files are its own: other runs of this machine have theirs
    (folder / "tmp").mkdir()
    # the environment is the one of here, in which the engine is where it is hidden
    environment = f"SetEnv TMPDIR={folder}/tmp PYTHONPATH={folder}/project/harness"
    environment += f" KERNEL_MATRIX_CACHE={cache}" if cache else ""
    (folder / "sshd_config").write_text(_CONFIG.format(folder=folder, environment=environment))
    users = Path("/etc/passwd").read_text()
    if "\nsshd:" not in users:
        users += "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
    (folder / "passwd").write_text(users)
    hidden = [shlex.quote(str(ROOT / name)) for name in ("harness", "suites", "build") if (ROOT / name).exists()]
    script = [
        "set -e",
        "ip link set lo up",
        f"mount --bind {folder}/passwd /etc/passwd",
        "mount -t tmpfs none /run && mkdir /run/sshd",
        *(f"mount -t tmpfs none {path}" for path in hidden),
        f"exec {SSHD} -D -e -f {folder}/sshd_config 2> {folder}/log",
    ]
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
    return subprocess.Popen([*command, "\n".join(script)], start_new_session=True)


def _first_process(unshare: int) -> int:
    """Return the child of unshare."""
    children = Path(f"/proc/{unshare}/task/{unshare}/children")
    end = time.monotonic() + 30
    while not (pids := children.read_text().split()):
        assert time.monotonic() < end
        select.select([], [], [], 0.02)
    return int(pids[0])


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Machine]]:
    running: list[subprocess.Popen[bytes]] = []

    def make(name: str) -> Machine:
        folder = tmp_path_factory.mktemp(name)
        _keys(folder)
        _copy_project(folder / "project")
        running.append(_begin(folder))
        made = Machine(name, folder, _first_process(running[-1].pid))
        (folder / "connect.py").write_text(_CONNECT)
        (folder / "config").write_text(_SSH.format(name=name, folder=folder, init=made.init, python=sys.executable))
        return made

    yield make
    for process in running:
        process.kill()
        process.wait()


class Started:
    """A run of the matrix."""

    def __init__(self, results: Path, *words: str) -> None:
        self.results = results
        self.log = results.with_suffix(".log")
        command = [
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "kernel_matrix",
            "matrix",
            f"--results={results}",
        ]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def finish(self) -> tuple[int, str]:
        try:
            status = self.process.wait(LIMIT)
        finally:
            self.process.kill()
        return status, self.log.read_text()

    def until_reported(self, kernel: str, test: str) -> None:
        end = time.monotonic() + LIMIT
        while not any((cell.kernel, cell.test.rpartition("::")[2]) == (kernel, test) for cell in self.cells()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)

    def cells(self) -> tuple[Cell, ...]:
        path = self.results / "latest" / "results.jsonl"
        return read_cells(path) if path.exists() else ()

    def details(self, kernel: str) -> dict[str, tuple[Outcome, str]]:
        cells = [cell for cell in self.cells() if cell.kernel == kernel]
        return {cell.test.rpartition("::")[2]: (cell.outcome, cell.detail) for cell in cells}


def _cells(results: Path) -> list[tuple[str, str, Outcome]]:
    return [(cell.kernel, cell.test, cell.outcome) for cell in document.read(results / "latest").cells]


def _hosts(*machines: Machine) -> str:
    return f"--hosts={','.join(computer.host for computer in machines)}"


def test_guests_on_other_machines_find_what_they_find_here(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    first, second = machine("first"), machine("second")
    there = Started(tmp_path / "there", _hosts(first, second), *RUN)
    status, output = there.finish()
    assert status == 0, output
    # one each: the recorded durations say which
    assert {*re.findall(r"\b(?:first|second) \((5\.10|6\.1)\): ", output)} == {"5.10", "6.1"}
    assert {*re.findall(r"\b(first|second) \((?:5\.10|6\.1)\): ", output)} == {"first", "second"}
    here = Started(tmp_path / "here", *RUN)
    status, output = here.finish()
    assert status == 0, output
    cells = _cells(here.results)
    assert len(cells) > 100
    assert _cells(there.results) == cells
    one, other = document.read(here.results / "latest"), document.read(there.results / "latest")
    assert one.columns == other.columns
    consoles = [(there.results / "latest" / "console" / f"{kernel}.log").read_text() for kernel in ("5.10", "6.1")]
    assert all("harness: start suites/execve" in console for console in consoles)
    guests = wire.decode((there.results / "latest" / "run.json").read_bytes(), RunRecord).guests
    assert {guest.kernel for guest in guests} == {"5.10", "6.1"}
    # the files are divided there, too, where a machine has room
    assert len(guests) > 2
    left = [path.name for computer in (first, second) for path in (computer.folder / "tmp").iterdir()]
    assert left == [], "what was made there for the run"


def test_a_machine_that_dies_costs_its_cells_and_nothing_else(
    machine: Callable[[str], Machine], tmp_path: Path
) -> None:
    first, second = machine("first"), machine("second")
    words = ("--kernel", "6.1", "--kernel", "5.10", "--silence", "600", "-k", "not test_hang or 6.1")
    run = Started(tmp_path / "results", _hosts(first, second), *words, "tests/faults/cases/case_hang.py")
    run.until_reported("6.1", "test_before")
    began = time.monotonic()
    second.die()
    status, output = run.finish()
    assert time.monotonic() - began < 120, output
    assert status == 1, output
    assert "INTERNALERROR" not in output
    assert {test: outcome for test, (outcome, _) in run.details("5.10").items()} == {
        "test_before": Outcome.PASS,
        "test_after": Outcome.PASS,
    }
    lost = run.details("6.1")
    assert {test: outcome for test, (outcome, _) in lost.items()} == {
        "test_before": Outcome.PASS,
        "test_hang": Outcome.LOST,
        "test_after": Outcome.LOST,
    }
    assert "host second is gone, in tests/faults/cases/case_hang.py::test_hang[6.1]" in lost["test_hang"][1]
    assert lost["test_after"][1] == "host second is gone"


@pytest.mark.parametrize("booting", [False, True])
def test_the_only_machine_may_die_before_its_guest_is_up(
    machine: Callable[[str], Machine], tmp_path: Path, booting: bool
) -> None:
    """While xdist starts the relay, and while that boots the guest."""
    only = machine("only")
    run = Started(tmp_path / "results", _hosts(only), "--cold", "--kernel", "6.1", "suites/features")
    end = time.monotonic() + LIMIT
    while "created: 1/1" not in run.log.read_text() or (
        booting and not any(b"-pidfile" in command for command in _processes(only))
    ):
        assert run.process.poll() is None, run.log.read_text()
        assert time.monotonic() < end
        select.select([], [], [], 0.01)
    only.die()
    status, output = run.finish()
    assert status == 3, output
    assert "INTERNALERROR" not in output
    ((test, (outcome, detail)),) = run.details("6.1").items()
    assert (test, outcome) == ("boot", Outcome.LOST)
    assert "host only is gone" in detail


def test_ctrl_c_ends_the_run_and_its_guests_there(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    only = machine("only")
    words = ("--kernel", "6.1", "--silence", "600", "tests/faults/cases/case_hang.py")
    run = Started(tmp_path / "results", _hosts(only), *words)
    run.until_reported("6.1", "test_before")
    began = time.monotonic()
    # the terminal sends it to the whole foreground group
    os.killpg(run.process.pid, signal.SIGINT)
    status, output = run.finish()
    assert time.monotonic() - began < 15, output
    assert status == 2, output
    assert "harness: start" in (run.results / "latest" / "console" / "6.1.log").read_text()
    end = time.monotonic() + 15
    while any(b"qemu-system" in command for command in _processes(only)):
        assert time.monotonic() < end
        select.select([], [], [], 0.05)


def _processes(machine: Machine) -> list[bytes]:
    namespace = Path(f"/proc/{machine.init}/ns/pid").readlink()
    commands = []
    for path in Path("/proc").glob("[0-9]*"):
        # it has ended meanwhile; or it may not be looked at, and then it is none of those that were started here
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if (path / "ns" / "pid").readlink() == namespace:
                commands.append((path / "cmdline").read_bytes())
    return commands


def test_a_machines_faults_are_one_line_before_any_boot(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    made = machine("made")

    def refused(hosts: str) -> tuple[int, str]:
        return Started(tmp_path / "results", f"--hosts={hosts}", "--kernel", "6.1", "suites/features").finish()

    status, output = refused(f"-F {made.folder}/config made:/nowhere")
    assert status == 4, output
    assert "made: /nowhere/.nox/harness/bin/python does not answer" in output
    (made.project / "suites" / "test_more.py").write_text("def test_more(): ...\n")
    status, output = refused(made.host)
    assert status == 4, output
    assert f"made: {made.project} is not the project as it is here (another commit, or changed files)\n" in output
    made.die()
    status, output = refused(made.host)
    assert status == 3, output
    assert "made: ssh cannot connect\n" in output
    assert refused("made:relative,,") == (
        4,
        "Exit: --hosts made:relative,,: '' is not a host such as user@name or user@name:/folder\n",
    )
