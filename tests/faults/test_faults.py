"""Guests that die: each costs its cell and nothing else. These boot real guests (`nox -s faults`)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel_matrix.shared import wire
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.vm.ending import STARTED
from kernel_matrix.vm.ending import Started as GuestStarted
from kernel_matrix.vm.qmp import Monitor
from tests.projects import HERE
from tests.result_sets import read_cells

ROOT = Path(__file__).resolve().parents[2]
CASES = Path("tests/faults/cases")
KERNEL = "6.1"
OTHER = "7.3"
#: far more than a boot takes on a machine that does ten other things
LIMIT = 600.0


@dataclass(frozen=True)
class Run:
    """A finished run of the matrix."""

    status: int
    output: str
    results: Path

    def outcomes(self, kernel: str = KERNEL) -> dict[str, Outcome]:
        cells = read_cells(self.results / "latest" / "results.jsonl")
        return {cell.test.rpartition("::")[2]: cell.outcome for cell in cells if cell.kernel == kernel}

    def cell(self, test: str, kernel: str = KERNEL) -> Cell:
        cells = read_cells(self.results / "latest" / "results.jsonl")
        return next(cell for cell in cells if cell.kernel == kernel and cell.test.endswith(test))

    def detail(self, test: str, kernel: str = KERNEL) -> str:
        return self.cell(test, kernel).detail


class Started:
    """A run of the matrix that goes on."""

    def __init__(self, results: Path, *arguments: str) -> None:
        self.results = results
        self.log = results.with_suffix(".log")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                # a background job of a shell ignores Ctrl-C, and so would this
                [
                    "env",
                    "--default-signal=INT",
                    sys.executable,
                    "-m",
                    "kernel_matrix",
                    "matrix",
                    f"--results={results}",
                    *arguments,
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self) -> Run:
        status = self.process.wait(LIMIT)
        return Run(status, self.log.read_text(), self.results)

    def console(self, kernel: str = KERNEL) -> str:
        try:
            return (self.results / "latest" / "console" / f"{kernel}.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def qemus(self) -> list[int]:
        """Return the QEMU processes of this run: its console's folder is in the name of no other."""
        pids = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                command = (path.parent / "cmdline").read_bytes()
                if b"qemu-system" in command.partition(b"\0")[0] and self._is_ours(path):
                    pids.append(int(path.parent.name))
            except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                continue
        return pids

    def _is_ours(self, environ: Path) -> bool:
        return f"HARNESS_RUN={self.results}".encode() in environ.read_bytes()

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)

    def until_in(self, test: str) -> None:
        """Wait until the guest is in that test, and the one before it is in the results: a report takes its time."""
        self.until(lambda: re.search(rf"harness: start \S*{test}\[", self.console()))
        self.until(lambda: "test_before" in (self.results / "latest" / "results.jsonl").read_text())


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Started]]:
    monkeypatch.setenv("HARNESS_RUN", str(tmp_path / "results"))
    runs: list[Started] = []

    def begin(*arguments: str) -> Started:
        runs.append(Started(tmp_path / "results", *arguments))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
        assert gone(run), "a QEMU outlived its run"


def gone(run: Started) -> bool:
    end = time.monotonic() + 10
    while run.qemus():
        if time.monotonic() > end:
            return False
        select.select([], [], [], 0.05)
    return True


def test_a_panic_costs_one_cell_and_no_other_kernel_notices(start: Callable[..., Started]) -> None:
    run = start(
        "--kernel", KERNEL, "--kernel", OTHER, str(CASES / "case_panic.py"), "-k", f"not test_panic or {KERNEL}"
    )
    result = run.finish()
    assert result.status == 1, result.output
    assert result.outcomes(KERNEL) == {
        "test_before": Outcome.PASS,
        "test_panic": Outcome.CRASH,
        "test_after": Outcome.PASS,
    }
    assert result.outcomes(OTHER) == {"test_before": Outcome.PASS, "test_after": Outcome.PASS}
    assert result.detail("test_panic").startswith("kernel 6.1 (6.1.")
    assert "sysrq triggered crash" in result.detail("test_panic")
    assert "test_before" not in result.detail("test_panic"), "the console of another test"


def test_a_panic_in_the_last_test_ends_the_kernel(start: Callable[..., Started]) -> None:
    result = start("--kernel", KERNEL, str(CASES / "case_panic_at_the_end.py")).finish()
    assert result.status == 1, result.output
    assert result.outcomes() == {"test_before": Outcome.PASS, "test_panic": Outcome.CRASH}


def test_a_panic_at_import_is_given_up_after_two_guests(start: Callable[..., Started]) -> None:
    result = start("--kernel", KERNEL, str(CASES / "case_panic_at_import.py")).finish()
    assert result.status == 1, result.output
    assert result.outcomes() == {"boot": Outcome.CRASH}


def test_a_test_that_never_ends_is_lost(start: Callable[..., Started]) -> None:
    result = start("--kernel", KERNEL, "--silence", "10", str(CASES / "case_hang.py")).finish()
    assert result.status == 1, result.output
    assert result.outcomes() == {
        "test_before": Outcome.PASS,
        "test_hang": Outcome.LOST,
        "test_after": Outcome.PASS,
    }
    assert "no word from the guest for 10 s" in result.detail("test_hang")
    # the whole time, that of asking included
    assert result.cell("test_hang").duration > 10


def test_a_hanging_test_fails_by_its_limit_or_is_located(start: Callable[..., Started]) -> None:
    """A limit ends a test that hangs in Python, and the guest goes on; for any other the report says where it hung."""
    result = start("--kernel", KERNEL, "--silence", "10", str(CASES / "case_limit.py")).finish()
    assert result.status == 1, result.output
    lost = {"test_is_deaf_in_python", "test_is_deaf_in_c", "test_starves_the_guest"}
    assert {test for test, outcome in result.outcomes().items() if outcome is Outcome.LOST} == lost
    passed = {"test_before", "test_between", "test_after"}
    assert {test for test, outcome in result.outcomes().items() if outcome is Outcome.PASS} == passed
    assert result.outcomes()["test_sleeps"] is Outcome.FAIL
    assert "no end of the call within" in result.detail("test_sleeps")
    assert "signal.pause()" in result.detail("test_sleeps")
    for test in ("test_is_deaf_in_python", "test_is_deaf_in_c"):
        assert re.search(rf'File "/harness/\S*case_limit.py", line \d+ in {test}\n', result.detail(test))
        assert re.search(r"process \d+ \(S\) .*python3", result.detail(test))
    starved = result.detail("test_starves_the_guest")
    assert "asked of its kernel (SysRq w, l)" in starved
    assert "sysrq: Show Blocked State" in starved
    assert "sysrq: Show backtrace of all active CPUs" in starved


def test_a_guest_with_stopped_processors_leaves_registers(start: Callable[..., Started]) -> None:
    """QEMU stops them (QMP: stop), so that neither keyboard nor NMI is answered."""
    run = start("--kernel", KERNEL, "--silence", "10", str(CASES / "case_hang.py"))
    run.until_in("test_hang")
    (started,) = (run.results / "latest").glob(f"guests-*/{KERNEL}.*{STARTED}")
    folder = Path(wire.decode(started.read_bytes(), GuestStarted).folder)
    with contextlib.closing(Monitor(folder / "monitor", seconds=LIMIT)) as monitor:
        monitor.execute("stop")
    result = run.finish()
    assert result.outcomes()["test_hang"] is Outcome.LOST
    assert "its processors, asked of QEMU:" in result.detail("test_hang")
    assert re.search(r"RIP=[0-9a-f]{16}", result.detail("test_hang"))


@pytest.mark.parametrize(("sent", "silence"), [(signal.SIGKILL, "60"), (signal.SIGSTOP, "10")])
def test_a_guest_that_is_killed_or_stopped_from_outside_is_lost(
    start: Callable[..., Started], sent: signal.Signals, silence: str
) -> None:
    run = start("--kernel", KERNEL, "--silence", silence, str(CASES / "case_hang.py"))
    run.until_in("test_hang")
    for pid in run.qemus():
        os.kill(pid, sent)
    result = run.finish()
    assert result.status == 1, result.output
    assert result.outcomes() == {
        "test_before": Outcome.PASS,
        "test_hang": Outcome.LOST,
        "test_after": Outcome.PASS,
    }


@pytest.mark.parametrize("killed", [WorkerId(KERNEL), WorkerId(KERNEL, 2)])
def test_the_death_of_a_guest_does_not_affect_its_twin(start: Callable[..., Started], killed: WorkerId) -> None:
    """Two files take long enough for two guests; the replacement of the dead one goes on in its file."""
    # three times, so that the first file is not over when the second guest is there
    files = {WorkerId(KERNEL): "test_counts.py", WorkerId(KERNEL, 2): "test_events.py"}
    both = [f"suites/execve/{file}" for file in files.values()]
    run = start("--kernel", KERNEL, "--loader", "libbpf", "--guests", "2", "--repeat", "3", *both)
    run.until(lambda: all(f"{file}::" in run.console(str(worker)) for worker, file in files.items()))
    (started,) = (run.results / "latest").glob(f"guests-*/{killed}.*{STARTED}")
    console = run.console(str(killed))
    os.killpg(wire.decode(started.read_bytes(), GuestStarted).group, signal.SIGKILL)
    result = run.finish()
    assert result.status == 1, result.output
    cells = [cell for cell in read_cells(run.results / "latest" / "results.jsonl") if not cell.outcome.green]
    (lost,) = cells
    assert (lost.outcome, lost.test.startswith(f"suites/execve/{files[killed]}::")) == (Outcome.LOST, True)
    assert "QEMU ended" in lost.detail
    assert len(result.outcomes()) > 30
    # its last words are where the reader is sent
    assert console in run.console()
    # by then its test may have ended, and the next one not begun: then the detail says that
    nodeid = expect.join_nodeid(lost.test, KERNEL)
    where = "in" if f"harness: start {nodeid}" in run.console() else "before"
    assert lost.detail.splitlines()[0].endswith(f", {where} {nodeid}")
    assert [path.name for path in (run.results / "latest" / "console").iterdir()] == [f"{KERNEL}.log"]


def test_a_kernel_that_does_not_boot_is_lost_and_named(start: Callable[..., Started], tmp_path: Path) -> None:
    manifest = tmp_path / "vmimages"
    shutil.copytree(HERE.images, manifest)
    vmlinuz = next(cached_kernels())
    with (manifest / "kernels.toml").open("a") as file:
        # without its modules this kernel has no driver for its root
        file.write(f'[kernel."own"]\ntier = "extended"\nprovider = "path"\nvmlinuz = "{vmlinuz}"\n')
    arguments = ["--manifest", str(manifest), "--kernel", "own", "--boot-timeout", "20", str(CASES / "case_hang.py")]
    result = start(*arguments).finish()
    # no kernel has a verdict
    assert result.status == 3, result.output
    assert result.outcomes("own") == {"boot": Outcome.LOST}
    assert result.detail("boot", "own").startswith("kernel own (did not boot): not ready after 20 s")
    assert "Waiting for root device" in result.detail("boot", "own")


def cached_kernels() -> Iterator[Path]:
    from kernel_matrix import images
    from kernel_matrix.config import manifest

    known = manifest.load(HERE.images)
    yield images.kernel_image(known, manifest.select(known, [KERNEL])[0]).vmlinuz


def test_a_kernel_warning_fails_the_test_that_was_running(start: Callable[..., Started]) -> None:
    result = start("--kernel", KERNEL, str(CASES / "case_warning.py")).finish()
    assert result.status == 1, result.output
    phases = {"test_in_the_set_up": "setup", "test_in_the_call": "call", "test_in_the_teardown": "teardown"}
    lost = "test_of_records_that_are_lost"
    assert result.outcomes() == {**dict.fromkeys([*phases, lost], Outcome.ERROR), "test_of_nothing": Outcome.PASS}
    for test, phase in phases.items():
        assert f"the kernel warned ({phase})" in result.detail(test)
    assert "records of the kernel's log were overwritten before they were read (call)" in result.detail(lost)


def test_a_warning_while_collecting_is_the_guests(start: Callable[..., Started]) -> None:
    """A second run restores a worker that has collected, and says it too."""
    for _ in range(2):
        result = start("--kernel", KERNEL, str(CASES / "case_warning_while_collecting.py")).finish()
        assert result.status == 1, result.output
        assert result.outcomes() == {"guest": Outcome.ERROR, "test_passes": Outcome.PASS}
        assert "the kernel warned outside every test" in result.detail("guest")


@pytest.mark.parametrize("fresh", ["kernel", "file", "test"])
def test_the_first_failure_stops_the_run_if_that_is_wanted(start: Callable[..., Started], fresh: str) -> None:
    result = start("--kernel", KERNEL, "-x", "--fresh", fresh, str(CASES / "case_stop.py")).finish()
    assert result.status == 1, result.output
    left_out = {f"test_after[{number}]": Outcome.NOTRUN for number in range(5)}
    assert result.outcomes() == {"test_fails": Outcome.FAIL, **left_out}


def test_a_fresh_guest_for_every_test_is_one(start: Callable[..., Started]) -> None:
    """A module that the first test loads is not there for the second."""
    result = start("--kernel", KERNEL, "--fresh", "test", str(CASES / "case_leak.py")).finish()
    assert result.status == 0, result.output
    assert result.outcomes() == {"test_leaks": Outcome.PASS, "test_is_not_met_by_it": Outcome.PASS}
    result = start("--kernel", KERNEL, "--fresh", "kernel", str(CASES / "case_leak.py")).finish()
    assert result.outcomes() == {"test_leaks": Outcome.PASS, "test_is_not_met_by_it": Outcome.FAIL}


def test_what_a_test_leaves_in_the_kernel_costs_its_guest(start: Callable[..., Started]) -> None:
    """The tests that its worker was sent already run in the next guest, too."""
    result = start("--kernel", KERNEL, str(CASES / "case_left.py")).finish()
    assert result.outcomes() == {
        "test_leaves_a_map": Outcome.ERROR,
        "test_is_in_another_guest": Outcome.PASS,
        "test_is_in_the_same_guest_as_the_one_before": Outcome.PASS,
    }


def test_copies_of_a_worker_do_not_share_randomness_or_time(start: Callable[..., Started]) -> None:
    """Three guests restored from one saved worker."""
    before = time.time()
    result = start("--kernel", KERNEL, "--fresh", "test", str(CASES / "case_random.py")).finish()
    assert result.status == 0, result.output
    paths = [result.results / "latest" / f"drawn-{number}" / f"{KERNEL}.json" for number in range(3)]
    urandom, drawn, times = zip(*[json.loads(path.read_text()) for path in paths], strict=True)
    assert len(set(urandom)) == len(set(drawn)) == 3
    order = [before, *times, time.time()]
    assert order == sorted(order)


def test_ctrl_c_ends_within_ten_seconds_and_leaves_no_guest(start: Callable[..., Started]) -> None:
    run = start("--kernel", KERNEL, "--silence", "300", str(CASES / "case_hang.py"))
    run.until_in("test_hang")
    assert len(run.qemus()) == 1
    began = time.monotonic()
    # the terminal sends it to the whole foreground group
    os.killpg(run.process.pid, signal.SIGINT)
    result = run.finish()
    assert time.monotonic() - began < 10
    assert result.status == 2, result.output
    assert gone(run)
    assert result.outcomes()["test_before"] is Outcome.PASS


def test_a_killed_controller_leaves_no_guest(start: Callable[..., Started]) -> None:
    run = start("--kernel", KERNEL, "--silence", "300", str(CASES / "case_hang.py"))
    run.until_in("test_hang")
    run.process.kill()
    run.process.wait()
    assert gone(run)
    assert read_cells(run.results / "latest" / "results.jsonl"), "what was found before stays"


def test_a_skip_that_no_mark_of_the_matrix_made_is_red(start: Callable[..., Started]) -> None:
    files = [str(CASES / name) for name in ("case_skips.py", "case_skips_as_a_whole.py")]
    result = start("--kernel", KERNEL, *files).finish()
    assert result.status == 1, result.output
    assert result.outcomes() == {
        "test_in_a_fixture": Outcome.ERROR,
        "test_in_the_call": Outcome.FAIL,
        "test_by_a_mark": Outcome.ERROR,
        "test_expected_to_fail": Outcome.FAIL,
        "test_of_nothing[NOTSET]": Outcome.ERROR,
        "test_passes": Outcome.PASS,
        files[1]: Outcome.ERROR,
    }
    for test, reason in (("test_in_the_call", "in the call"), (files[1], "as a whole")):
        assert reason in result.detail(test)
        assert "@requires(feature)" in result.detail(test)
