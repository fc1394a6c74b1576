"""Which machines guests are on, who gets what, and what a machine answers."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import execnet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.config import project as configuration
from kernel_matrix.plan.guest_list import RunRequest
from kernel_matrix.plan.preparation import PlannedGuest
from kernel_matrix.plan.sharding import Unit
from kernel_matrix.relay import payload
from kernel_matrix.remote import guest_hosts, hosted, hosts
from kernel_matrix.remote.guest_hosts import LocalHost, RemoteHosts
from kernel_matrix.remote.hosted import Machine, Service
from kernel_matrix.remote.hosts import Connection, Host, HostGone
from kernel_matrix.report.run_folder import KernelFacts, RunDirectory
from kernel_matrix.shared import wire
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.errors import HarnessError, ManifestError
from tests.projects import HERE, ROOT

names = st.sampled_from("abcdefgh")


class Popen(Host):
    """This machine, through execnet but without ssh."""

    @property
    def spec(self) -> str:
        return f"popen//python={self.python}//execmodel=thread//id={self.identity}"


@pytest.fixture
def group() -> Iterator[execnet.Group]:
    made = execnet.Group()
    yield made
    made.terminate(10)


def _project(folder: Path) -> Path:
    """Make a project that is enough to be asked for."""
    (folder / "kernel-matrix.toml").touch()
    return folder


#: what a machine says of a folder without a table
_NO_PROJECT = (
    r"^this: /\S+: no project: no kernel-matrix\.toml, "
    r"and no \[tool\.kernel-matrix\] in pyproject\.toml, here or above$"
)


def test_hosts_are_where_ssh_is_told_to_go_and_a_folder() -> None:
    here, there, other = hosts.parse("user@a, b:/srv/matrix,-p 2222 -F /x/config user@c:/y", Path("/home/me/matrix"))
    assert (here.identity, here.ssh, here.name, here.folder) == ("host-1", "user@a", "user@a", Path("/home/me/matrix"))
    assert (there.identity, there.ssh, there.folder) == ("host-2", "b", Path("/srv/matrix"))
    assert (other.ssh, other.name, other.folder) == ("-p 2222 -F /x/config user@c", "user@c", Path("/y"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "'' is not a host such as user@name or user@name:/folder"),
        ("a,,b", "'' is not a host"),
        ("a,-p", "'-p' is not a host"),
        ("a://b", "'a://b' is not a host"),
        ("a,b,a", "a host is named twice"),
    ],
)
def test_what_is_no_host_is_refused_in_a_line(text: str, line: str) -> None:
    with pytest.raises(ManifestError) as error:
        hosts.parse(text, Path("/x"))
    assert str(error.value).startswith(f"--hosts {text}: {line}")


def test_a_python_outside_the_project_keeps_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that is not below the project has the same path on every machine."""
    monkeypatch.setattr(sys, "executable", "/opt/matrix/bin/python")
    (host,) = hosts.parse("a:/srv/x", Path("/home/me/matrix"))
    assert host.python == "/opt/matrix/bin/python"


def test_the_specs_are_execnets_and_relays_go_via_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay is a popen spec via the gateway of its machine."""
    monkeypatch.setattr(sys, "executable", str(ROOT / ".nox/harness/bin/python"))
    (host,) = hosts.parse("-p 2 user@a:/a folder", ROOT)
    connection = execnet.XSpec(host.spec)
    assert (connection.ssh or "").endswith(" -p 2 user@a")
    assert (connection.python, connection.chdir) == ("'/a folder/.nox/harness/bin/python'", None)
    guest = PlannedGuest("6.1+locked", "", frozenset(), Path("/t/6.1.json"), Path("/t/6.1.ending.json"))
    relay = execnet.XSpec(host.relay(guest, WorkerId("6.1+locked")))
    assert (relay.popen, relay.via, relay.kernel, relay.chdir) == (True, connection.id, "6.1+locked", None)
    python = "'/a folder/.nox/harness/bin/python' -m kernel_matrix.relay.serve"
    assert (relay.worker, relay.python) == ("1", f"{python} /t/6.1.json /t/6.1.ending.json")
    beside = execnet.XSpec(host.relay(guest, WorkerId("6.1+locked", 2)))
    files = "'/t/6.1+locked~2.json' '/t/6.1+locked~2.ending.json'"
    assert (beside.kernel, beside.worker, beside.python) == ("6.1+locked", "2", f"{python} {files}")


@given(
    st.dictionaries(names, st.integers(1, 100).map(float)),
    st.dictionaries(names, st.integers(1, 8), min_size=1, max_size=4),
)
def test_every_guest_is_dealt_once_to_the_earliest_machine(weights: dict[str, float], capacity: dict[str, int]) -> None:
    """No guest waits on a machine where it would be done later than on another."""
    dealt = hosts.deal(weights, capacity)
    assert sorted(guest for guests in dealt.values() for guest in guests) == sorted(weights)
    done = {host: sum(weights[guest] for guest in guests) / capacity[host] for host, guests in dealt.items()}
    for host, guests in dealt.items():
        # the last one that was dealt to a host could not have been done earlier on another, as that is now
        if guests:
            last = guests[-1]
            assert all(done[host] <= done[machine] + weights[last] / capacity[machine] + 1e-9 for machine in capacity)


def test_a_machine_that_runs_more_at_once_gets_more() -> None:
    weights = {f"k{number}": 10.0 for number in range(6)}
    assert hosts.deal(weights, {"small": 1, "large": 2}) == {
        "small": ["k1", "k4"],
        "large": ["k0", "k2", "k3", "k5"],
    }


def test_a_guest_takes_what_its_files_take_and_a_little() -> None:
    weights = {Unit("6.1", "a"): 2.0, Unit("6.1", "b"): 3.0, Unit("7.3", "a"): 4.0}
    assert hosts.by_guest(weights, ["6.1", "7.3", "9.9"]) == {"6.1": 6.0, "7.3": 5.0, "9.9": 1.0}


def test_a_machine_says_what_project_it_has_and_reads_files(tmp_path: Path, group: execnet.Group) -> None:
    folder = _project(tmp_path)
    connection = Connection(Popen("host-1", "this", folder, sys.executable), group)
    machine = wire.decode(connection.ask("machine"), Machine)
    project = configuration.load(folder)
    assert project
    assert machine.project == payload.digest(project)
    assert machine.slots >= 1
    (tmp_path / "file").write_bytes(b"\0x")
    assert connection.ask("read", str(tmp_path / "file").encode()) == b"\0x"
    with pytest.raises(HarnessError, match=r"^this: /nowhere: No such file or directory$"):
        connection.ask("read", b"/nowhere")
    assert connection.ask("collect") == {}


# execnet leaves the pipe to a process that has ended to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_missing_project_or_environment_is_one_line(tmp_path: Path, group: execnet.Group) -> None:
    """The folder on the other machine has no project, or the project there has no environment."""
    with pytest.raises(ManifestError, match=_NO_PROJECT):
        Connection(Popen("host-1", "this", tmp_path, sys.executable), group).ask("machine")
    without = r"^this: /\S+ is not this project: ModuleNotFoundError: [^\n]*kernel_matrix'$"
    with pytest.raises(ManifestError, match=without):
        Connection(Popen("host-3", "this", tmp_path, f"{sys.executable} -S"), group).ask("machine")
    with pytest.raises(ManifestError, match=r"^this: true does not answer: is the project there, and set up\?$"):
        Connection(Replaced("host-2", "this", tmp_path, "true"), group).ask("machine")
    with pytest.raises(ManifestError, match=r"^this: /\S+/gone: No such file or directory$"):
        Connection(Popen("host-4", "this", tmp_path / "gone", sys.executable), group).ask("machine")
    assert not (tmp_path / "gone").exists()


def test_a_missing_project_is_the_same_line_when_early(tmp_path: Path, group: execnet.Group) -> None:
    """The answer of a folder without the project may come before the question is sent."""
    connection = Connection(Popen("host-1", "this", tmp_path, sys.executable), group)
    end = time.monotonic() + 60
    # waitclose() would take away what it said
    while not connection._channel.isclosed() and time.monotonic() < end:
        select.select([], [], [], 0.01)
    with pytest.raises(ManifestError, match=_NO_PROJECT):
        connection.ask("machine")


class Replaced(Popen):
    """A machine whose Python ends at once."""

    @property
    def spec(self) -> str:
        return f"popen//python={self.python}//id={self.identity}"


def test_a_machine_that_is_lost_is_a_line_that_names_it(tmp_path: Path, group: execnet.Group) -> None:
    connection = Connection(Popen("host-1", "this", _project(tmp_path), sys.executable), group)
    connection.ask("collect")
    group["host-1"]._io.kill()
    group["host-1"].join(10)
    with pytest.raises(HarnessError, match=r"^this: the connection is lost$"):
        connection.ask("collect")


class Answers:
    """A connection whose machine hands over what it has, cannot, or is gone."""

    def __init__(self, answer: dict[str, bytes] | Exception) -> None:
        self._answer = answer

    def ask(self, _: str) -> dict[str, bytes]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def test_a_file_that_a_machine_cannot_send_is_reported(tmp_path: Path) -> None:
    """The files of the other machines arrive."""
    place = RemoteHosts(hosts.parse("a,b,c", ROOT))
    answers: tuple[dict[str, bytes] | Exception, ...] = (
        HarnessError("a: x.log: Input/output error"),
        HostGone("b: the connection is lost"),
        {"6.1.log": b"last"},
    )
    place._connections = {str(number): Answers(answer) for number, answer in enumerate(answers)}  # type: ignore[misc]
    run = RunDirectory.create(tmp_path)
    with pytest.raises(HarnessError, match=r"^a: x\.log: Input/output error$"):
        place.collect(run, tmp_path)
    assert run.console("6.1").read_bytes() == b"last"


def test_an_error_there_keeps_its_status_here(tmp_path: Path) -> None:
    service = Service(HERE, tmp_path, print)
    request = RunRequest(("9.9",), arguments=("suites",), guests=None, locked=False, silence=None)
    kind, answer = service.answer("prepare", wire.encode(request))
    assert kind == hosted.FAILED
    assert isinstance(answer, tuple)
    assert answer[0] == 4
    assert answer[1].startswith("unknown kernel '9.9'")


def test_what_the_relays_leave_is_found(tmp_path: Path) -> None:
    for name in ("1/console/6.1.log", "1/guests-x/6.1.77.started.json", "1/guests-x/6.1.json", "1/run.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "latest").symlink_to("1")
    assert Service(HERE, tmp_path, print).answer("collect", b"") == (
        hosted.DONE,
        {"6.1.log": b"1/console/6.1.log", "6.1.77.started.json": b"1/guests-x/6.1.77.started.json"},
    )


def test_guests_are_here_unless_hosts_are_named() -> None:
    assert isinstance(guest_hosts.of(None, ROOT), LocalHost)
    assert isinstance(guest_hosts.of("user@a", ROOT), RemoteHosts)


def test_what_only_this_machine_has_is_refused(tmp_path: Path) -> None:
    request = RunRequest((), arguments=("suites",), guests=None, locked=False, silence=None)
    for changes in ({"with_cache": True}, {"manifest": tmp_path}, {"carried": tmp_path}):
        refused = replace(request, **changes)
        with pytest.raises(ManifestError, match=r"^--hosts: --manifest, --carry, --lf"):
            RemoteHosts(hosts.parse("a", ROOT)).prepare(HERE, refused, None, print)  # type: ignore[arg-type]


def test_a_kernel_and_its_variant_are_of_one_package() -> None:
    one, other = hosts.parse("a,b", ROOT)
    place = RemoteHosts((one, other))
    place._of = {"6.1": one, "6.1+locked": other, "7.3": other}
    first = KernelFacts("6.1", "6.1.0-56", "1-1")
    place._check_packages([first, replace(first, name="6.1+locked"), KernelFacts("7.3", "7.3.4", "2")])
    with pytest.raises(HarnessError, match=r"^kernel 6\.1 is 1-1 on a and 1-2 on b$"):
        place._check_packages([first, KernelFacts("6.1+locked", "6.1.0-57", "1-2")])
