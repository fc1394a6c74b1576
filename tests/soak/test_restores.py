"""Many restores of every core kernel, four at once: each answers, with its own random numbers and the right time.

`nox -s soak`; ``KERNEL_MATRIX_RESTORES`` sets another number than 100 a kernel.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import execnet
import pytest

from kernel_matrix.config import manifest
from kernel_matrix.plan import preparation
from kernel_matrix.plan.guest_list import RunRequest
from kernel_matrix.plan.preparation import PlannedGuest
from kernel_matrix.relay import client
from kernel_matrix.report import run_folder
from kernel_matrix.vm.guests import Guests, summary
from tests.projects import HERE

AT_ONCE = 4
#: seconds for one restored guest to answer and end, on a machine that does ten other things
LIMIT = 120.0
CORE = [kernel.name for kernel in manifest.load(HERE.images).kernels if kernel.tier == "core"]

#: runs in the guest: what copies of one guest would share, the clock, a timer, and a module from the second disk
_ASK = """
import os, random, select, subprocess, time
began = time.monotonic()
select.select([], [], [], 0.05)
slept = time.monotonic() - began
subprocess.run(["modprobe", "dummy"], check=True)
loaded = os.path.isdir("/sys/module/dummy")
channel.send((os.urandom(16).hex(), random.random(), time.time(), slept, loaded))
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one restored guest answered, and the host's time before it was started and after it answered."""

    urandom: str
    random: float
    time: float
    slept: float
    loaded: bool
    before: float
    after: float


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> preparation.Plan:
    run = run_folder.RunDirectory.create(tmp_path_factory.mktemp("results"))
    request = RunRequest(kernels=("core",), arguments=(), guests=AT_ONCE, locked=False, silence=None)
    return preparation.prepare(HERE, request, run, say=print)


@pytest.fixture(scope="module")
def group() -> Iterator[execnet.Group]:
    made = execnet.Group()
    yield made
    made.terminate(timeout=10)


def ask(group: execnet.Group, guest: PlannedGuest, number: int) -> Answer:
    ending = guest.ending_path.with_name(f"{guest.kernel}.{number}.ending.json")
    relay = shlex.join(client.command(guest.job_path, ending))
    before = time.time()
    gateway = group.makegateway(f"popen//id={guest.kernel}-{number}//python={relay}")
    try:
        urandom, number_of_python, now, slept, loaded = gateway.remote_exec(_ASK).receive(timeout=LIMIT)
    finally:
        gateway.exit()
    return Answer(urandom, number_of_python, now, slept, loaded, before, time.time())


@pytest.mark.parametrize("kernel", CORE)
def test_every_restore_has_its_own_randomness_and_right_time(
    kernel: str, plan: preparation.Plan, group: execnet.Group
) -> None:
    restores = int(os.environ.get("KERNEL_MATRIX_RESTORES", "100"))
    guest = next(guest for guest in plan.guests if guest.kernel == kernel)
    numbers = count()
    # the first one makes the snapshot, if there is none
    ask(group, guest, next(numbers))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: ask(group, guest, next(numbers)), range(restores)))
    assert len({answer.urandom for answer in answers}) == restores
    assert len({answer.random for answer in answers}) == restores
    # the guest's clock is set from the host's after its start, so it is behind by what that takes and never ahead
    assert [answer for answer in answers if not answer.before <= answer.time <= answer.after] == []
    assert [answer for answer in answers if answer.slept < 0.05] == []
    assert all(answer.loaded for answer in answers)
    records = [record for record in Guests(plan.folder).records() if record.kernel == kernel]
    print(f"{kernel}: {summary(records)}")
    assert [record.how for record in records] == ["restored"] * (restores + 1)
    assert [record.note for record in records if record.note] == []
