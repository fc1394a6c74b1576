"""What the controller gives a guest's worker arrives as it was, in the same bytes each time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import Any

import execnet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.shared.channel import worker_input
from kernel_matrix.shared.channel.worker_input import WORKER_KEY, WorkerInput
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.shared.project import Command, Program

pytest_plugins = ["pytester"]

names = st.text(max_size=8)
sets = st.frozensets(names, max_size=6)
programs = st.builds(Program, names, names, names, names)
commands = st.builds(Command, names, st.floats(allow_nan=False, allow_infinity=False))
facts = st.builds(
    GuestFacts,
    *(names, sets, sets, st.dictionaries(names, sets, max_size=4), st.tuples() | st.tuples(programs)),
    commands=st.tuples() | st.tuples(commands),
)
words = st.lists(names, max_size=3).map(tuple)
seconds = st.none() | st.floats(allow_nan=False, allow_infinity=False)
inputs = st.builds(
    WorkerInput, facts, gone=names, arguments=words, begins=names, command=words, timeout=seconds, keep=st.booleans()
)


@given(inputs)
def test_a_worker_reads_what_the_controller_has_written(given_input: WorkerInput) -> None:
    """Through execnet, which carries it."""
    carried = execnet.loads(execnet.dumps(worker_input.pack(given_input, None)))
    restored, channel = worker_input.unpack(carried)
    assert restored == given_input
    assert type(restored.facts.features) is frozenset
    assert channel is None


def test_the_channel_goes_beside_it() -> None:
    channel: Any = object()
    facts = GuestFacts("6.1", frozenset(), frozenset(), {})
    assert worker_input.unpack(worker_input.pack(WorkerInput(facts), channel)) == (WorkerInput(facts), channel)


@given(facts)
def test_facts_are_read_as_they_were_written(given_facts: GuestFacts) -> None:
    assert worker_input.decode_facts(worker_input.encode_facts(given_facts)) == given_facts


@given(facts, st.randoms(use_true_random=False))
def test_the_order_in_which_a_set_was_made_is_no_part_of_it(given_facts: GuestFacts, rng: random.Random) -> None:
    def again(of: frozenset[str]) -> frozenset[str]:
        shuffled = sorted(of)
        rng.shuffle(shuffled)
        # a set that has held more is iterated in another order
        made = {str(number) for number in range(rng.randrange(64))} - of
        made |= set(shuffled)
        return frozenset(made & of)

    other = GuestFacts(
        given_facts.kernel,
        again(given_facts.features),
        again(given_facts.all_features),
        {kernel: again(features) for kernel, features in given_facts.kernels.items()},
        given_facts.programs,
        commands=given_facts.commands,
    )
    one = worker_input.pack(WorkerInput(given_facts), None)
    assert execnet.dumps(worker_input.pack(WorkerInput(other), None)) == execnet.dumps(one)


_PROGRAM = """
from kernel_matrix.shared.channel import worker_input
from kernel_matrix.shared.outcomes.features import GuestFacts
names = frozenset(f"feature_{number}" for number in range(40))
print(list(names) == sorted(names), worker_input.encode_facts(GuestFacts("6.1", names, names, {"6.1": names})))
"""


def test_every_controller_writes_the_same_bytes() -> None:
    """Strings are hashed otherwise in each process, and sets are iterated otherwise."""
    outputs = set()
    for seed in range(3):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", _PROGRAM]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        in_order, _, text = done.stdout.partition(" ")
        assert in_order == "False"
        outputs.add(text)
    assert len(outputs) == 1


def test_a_worker_writes_no_report_that_nobody_reads(pytester: pytest.Pytester) -> None:
    """It has no terminal reporter, whoever configures first."""
    config = pytester.parseconfig("-p", "kernel_matrix.plugin", "--matrix")
    facts = GuestFacts("6.1", frozenset(), frozenset(), {"6.1": frozenset()})
    vars(config)["workerinput"] = {WORKER_KEY: worker_input.pack(WorkerInput(facts, gone="no guest"), None)}
    config._do_configure()
    assert config.pluginmanager.getplugin("terminalreporter") is None
    config._ensure_unconfigure()
