"""Items of an object: what is refused, declared, and undeclared. The kernel's answers are those of a fake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import kernel_modules, leaks
from kernel_matrix.guest.bpf.foreign import environment, least
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.hooks import targets
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.loading import LoadedObject
from kernel_matrix.guest.bpf.foreign.scenarios import playing
from kernel_matrix.guest.bpf.foreign.trial import Trial
from kernel_matrix.guest.bpf.steps import Program
from kernel_matrix.guest.pytest.items import objects
from kernel_matrix.shared.bpf import bpf_elf
from kernel_matrix.shared.bpf.object_table import ObjectSettings
from tests.test_bpf_elf import compiled

__all__ = ["compiled"]

pytest_plugins = ["pytester"]

#: answers, and words of pytest's -> item -> its outcome, the outcome that it states, its text
Run = Callable[..., dict[str, tuple[str, str, str]]]

#: takes the place of a guest: facts, and a kernel that answers as ANSWERS say
CONFTEST = """
import contextlib, errno, json, os
from dataclasses import replace
from pathlib import Path

from kernel_matrix.guest.bpf.foreign.undeclared import NoTarget, Undeclared
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.pytest import marks
from kernel_matrix.guest.pytest.items import objects
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.shared.bpf.object_table import Expected, ObjectTable
from kernel_matrix.shared.bpf.scenario import Scenario
from kernel_matrix.guest.bpf import leaks
from kernel_matrix.guest.bpf.foreign import environment, least
from kernel_matrix.guest.bpf.foreign.scenarios import playing
from kernel_matrix.guest.bpf.foreign.hooks import targets

ANSWERS = json.loads(Path("answers.json").read_text())
EXPECTED = [Expected(**{**entry, "one_of": tuple(entry.get("one_of", ()))}) for entry in ANSWERS.pop("expected", [])]
LEFT = ANSWERS.pop("left", None)
SCENARIOS = tuple(Scenario(name, "x.bpf.o", ()) for name in ANSWERS.pop("scenarios", []))


class Trial:
    def __init__(self, foreign, pins):
        self.foreign, self.pins = foreign, pins

    @contextlib.contextmanager
    def having(self, program):
        raise_for(program, "load")
        yield None

    def attach(self, program, place):
        raise_for(program, "load")
        raise_for(program, "attach")
        return "a socket"

    def close(self):
        pass


def raise_for(program, stage):
    answer = ANSWERS.get(f"{program}::{stage}")
    if answer == "undeclared":
        raise Undeclared("its loader knows", 'object."x.bpf.o".targets.p = "X"')
    if answer == "no target":
        raise NoTarget("no guest has it", "x.bpf.o", program)
    if answer:
        raise StepError(getattr(errno, answer), stage, program)


class Place:
    def close(self):
        pass


def play(scenario, foreign, pins, place):
    raise_for("scenario", scenario.name)
    return ANSWERS.get(f"wrong::{scenario.name}", [])


def pytest_configure(config):
    kernels = {"6.1": frozenset({"fentry"}), "5.10": frozenset()}
    facts = GuestFacts("6.1", kernels["6.1"], frozenset({"fentry", "tcx"}), kernels)
    config.stash[marks.GUEST_FACTS] = replace(facts, objects=ObjectTable({}, tuple(EXPECTED), ("CAP_BPF",), SCENARIOS))
    config.stash[objects.KERNELS] = ("6.1",)
    config.addinivalue_line("markers", "timeout")
    objects.environment.show_configuration = lambda: None
    objects.environment.bpffs = contextlib.nullcontext
    objects.leaks.present = lambda: frozenset()
    objects.leaks.wait_for_release = lambda before: frozenset([LEFT] if LEFT else [])
    objects.kernel_modules.loaded = lambda path, declared: contextlib.nullcontext()
    objects.Trial, objects.Place = Trial, Place
    playing.play = play
    objects.least.capabilities = lambda trial, program, place: tuple(ANSWERS.get(f"{program}::needs", ["CAP_BPF"]))
    objects.least.suffice = lambda trial, program, place, names: f"{program}::enough" in ANSWERS
    config.pluginmanager.register(marks)
    config.pluginmanager.register(objects)
"""


@pytest.fixture
def run(pytester: pytest.Pytester, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs the object's items; answers: PROGRAM::STAGE -> an errno."""
    pytester.makeconftest(CONFTEST)
    (pytester.path / "x.bpf.o").write_bytes(compiled.read_bytes())
    # in one process with all other tests: what the conftest replaces is set back
    for module in (objects, environment, kernel_modules, leaks, targets, least, playing):
        for name, value in list(vars(module).items()):
            monkeypatch.setattr(module, name, value)
    monkeypatch.setenv("KERNEL_MATRIX_ROOT", str(pytester.path))

    def do(answers: str, *words: str) -> dict[str, tuple[str, str, str]]:
        (pytester.path / "answers.json").write_text(answers)
        result = pytester.inline_run("-p", "no:hypothesispytest", "x.bpf.o", *(words or ("-k", "load or attach")))
        outcomes: dict[str, tuple[str, str, str]] = {}
        for report in result.getreports("pytest_runtest_logreport"):
            if report.when == "call" or report.failed:
                stated = str(dict(report.user_properties).get("outcome", ""))
                outcomes[report.nodeid.removeprefix("x.bpf.o::")] = (report.outcome, stated, report.longreprtext)
        return outcomes

    return do


def _short(outcomes: dict[str, tuple[str, str, str]]) -> dict[str, str]:
    return {name: stated or outcome for name, (outcome, stated, _) in outcomes.items()}


def test_each_program_has_its_items(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "answers.json").write_text("{}")
    result = pytester.inline_run("--collect-only", "x.bpf.o")
    names = [item.nodeid for item in result.getcalls("pytest_itemcollected") for item in [item.item]]
    acts = ("load", "attach", "capabilities", "cost")
    assert names == [f"x.bpf.o::{program}::{act}[6.1]" for program in ("first", "second", "third") for act in acts]


def test_an_object_in_a_folder_of_tests_is_not_collected(run: Run, pytester: pytest.Pytester, compiled: Path) -> None:
    """Only what the table or the command line names: a test may have objects beside it."""
    (pytester.path / "answers.json").write_text("{}")
    (pytester.path / "sub").mkdir()
    (pytester.path / "sub" / "y.bpf.o").write_bytes(compiled.read_bytes())
    result = pytester.inline_run("--collect-only", "sub")
    assert result.getcalls("pytest_itemcollected") == []


def test_a_node_id_selects_one_item(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "answers.json").write_text("{}")
    result = pytester.inline_run("x.bpf.o::second::attach[6.1]")
    reports = [report for report in result.getreports("pytest_runtest_logreport") if report.when == "call"]
    assert [report.nodeid for report in reports] == ["x.bpf.o::second::attach[6.1]"]


def test_a_refusal_fails_with_its_cause_first(run: Run) -> None:
    outcomes = run('{"first::attach": "EINVAL", "second::load": "undeclared"}')
    assert _short(outcomes) == {
        "first::load[6.1]": "passed",
        "first::attach[6.1]": "failed",
        "second::load[6.1]": "undeclared",
        "second::attach[6.1]": "undeclared",
        "third::load[6.1]": "passed",
        "third::attach[6.1]": "passed",
    }
    assert outcomes["first::attach[6.1]"][2].startswith("refused at attach: EINVAL: ")
    lines = outcomes["second::load[6.1]"][2].splitlines()
    assert lines == ["its loader knows", 'add to the table: object."x.bpf.o".targets.p = "X"']


def test_exactly_the_declared_refusal_is_refused(run: Run) -> None:
    """Another errno, another stage and a success are red."""
    entry = '{{"cells": "x.bpf.o::{}::attach", "stage": "attach", "errno": "EINVAL"}}'
    entries = ", ".join(entry.format(name) for name in ("first", "second", "third"))
    outcomes = run(f'{{"first::attach": "EINVAL", "second::attach": "EPERM", "expected": [{entries}]}}')
    assert _short(outcomes)["first::attach[6.1]"] == "refused"
    assert _short(outcomes)["second::attach[6.1]"] == "failed"
    assert outcomes["third::attach[6.1]"][0] == "failed"
    assert "declared to be refused with EINVAL" in outcomes["third::attach[6.1]"][2]


def test_the_errno_of_another_stage_is_another_refusal(run: Run) -> None:
    entry = '{"cells": "x.bpf.o::first::attach", "stage": "load", "errno": "EINVAL"}'
    outcomes = run(f'{{"first::attach": "EINVAL", "expected": [{entry}]}}')
    assert _short(outcomes)["first::attach[6.1]"] == "failed"


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [('"kernels": ["5.10"]', "failed"), ('"without": "fentry"', "failed"), ('"without": "tcx"', "refused")],
)
def test_an_expectation_holds_where_it_says(run: Run, condition: str, outcome: str) -> None:
    entry = f'{{"cells": "*::first::*", "stage": "attach", "errno": "EINVAL", {condition}}}'
    outcomes = run(f'{{"first::attach": "EINVAL", "expected": [{entry}]}}')
    assert _short(outcomes)["first::attach[6.1]"] == outcome
    # what is refused at attach is loaded
    assert _short(outcomes)["first::load[6.1]"] == "passed"


def test_a_target_that_no_guest_has_may_be_declared_so(run: Run) -> None:
    """What only the loader knows may not: that is a line to add, and no kernel's affair."""
    outcomes = run('{"first::attach": "no target"}')
    assert _short(outcomes)["first::attach[6.1]"] == "undeclared"
    (text,) = [outcome[2] for name, outcome in outcomes.items() if name.endswith("first::attach[6.1]")]
    assert 'add to the table: [[expect]] cells = "*/x.bpf.o::first::attach", optional = true' in text
    declared = run('{"first::attach": "no target", "expected": [{"cells": "*", "optional": true}]}')
    assert _short(declared)["first::attach[6.1]"] == "refused"


def test_an_optional_program_may_be_refused(run: Run) -> None:
    """But what only its loader knows stays undeclared."""
    entry = '{"cells": "*", "optional": true}'
    outcomes = run(f'{{"first::attach": "EINVAL", "second::attach": "undeclared", "expected": [{entry}]}}')
    assert [_short(outcomes)[f"{name}::attach[6.1]"] for name in ("first", "second", "third")] == [
        "refused",
        "undeclared",
        "passed",
    ]


@pytest.mark.parametrize(("second", "outcome"), [("", "refused"), ("EINVAL", "failed")])
def test_one_of_the_alternatives_must_attach(run: Run, second: str, outcome: str) -> None:
    """Nothing is declared of what else the pattern matches."""
    entry = '{"cells": "*::attach", "one_of": ["first", "second"]}'
    refused = f'"first::attach": "ENOENT", "second::attach": "{second}", "third::attach": "ENOENT"'
    outcomes = _short(run(f'{{{refused}, "expected": [{entry}]}}'))
    assert outcomes["first::attach[6.1]"] == outcome
    assert outcomes["third::attach[6.1]"] == "failed"


def test_a_known_issue_is_strict(run: Run, pytester: pytest.Pytester) -> None:
    entry = '{"cells": "*::attach", "known_issue": "https://example.com/1"}'
    outcomes = run(f'{{"first::attach": "EINVAL", "expected": [{entry}]}}')
    assert outcomes["first::attach[6.1]"][0] == "skipped"
    assert outcomes["second::attach[6.1]"][0] == "failed"
    assert "XPASS(strict)" in outcomes["second::attach[6.1]"][2]


def test_more_capabilities_than_promised_are_red(run: Run) -> None:
    outcomes = run('{"second::needs": ["CAP_BPF", "CAP_PERFMON"]}', "-k", "capabilities")
    assert [outcome for outcome, _, _ in outcomes.values()] == ["passed", "failed", "passed"]
    assert "needs CAP_PERFMON, and the table promises CAP_BPF" in outcomes["second::capabilities[6.1]"][2]


def test_what_is_promised_may_be_another_set_that_suffices(run: Run) -> None:
    """CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, a smallest set has these."""
    outcomes = run('{"second::needs": ["CAP_BPF", "CAP_PERFMON"], "second::enough": ""}', "-k", "capabilities")
    assert [outcome for outcome, _, _ in outcomes.values()] == ["passed", "passed", "passed"]


def test_what_an_object_leaves_fails_its_last_item(run: Run) -> None:
    outcomes = run('{"left": "link 7"}')
    assert outcomes["third::attach[6.1]"][0] == "failed"
    assert "left in the kernel: link 7" in outcomes["third::attach[6.1]"][2]


def test_an_expectation_about_no_cell_is_an_error(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "answers.json").write_text('{"expected": [{"cells": "x.bpf.o::gone::load", "optional": true}]}')
    result = pytester.runpytest("x.bpf.o")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*x.bpf.o has no such cell*"])


def test_scenarios_are_items_behind_those_of_programs(run: Run) -> None:
    """Each by its name, red with a line for what does not hold."""
    answers = '{"scenarios": ["one", "two"], "wrong::two": ["a: expected 1, is 2", "b: expected 3, is 4"]}'
    outcomes = run(answers, "-k", "scenario or third")
    assert list(_short(outcomes))[-2:] == ["scenario::one[6.1]", "scenario::two[6.1]"]
    assert _short(outcomes)["scenario::one[6.1]"] == "passed"
    assert outcomes["scenario::two[6.1]"][0] == "failed"
    assert outcomes["scenario::two[6.1]"][2] == "a: expected 1, is 2\nb: expected 3, is 4"


def test_a_scenario_that_does_not_hold_may_be_a_known_issue(run: Run) -> None:
    entry = '{"cells": "*::scenario::*", "known_issue": "https://example.com/1"}'
    outcomes = run(f'{{"scenarios": ["one", "two"], "wrong::one": ["a"], "expected": [{entry}]}}', "-k", "scenario")
    assert [outcome for outcome, _, _ in outcomes.values()] == ["skipped", "failed"]
    assert "XPASS(strict)" in outcomes["scenario::two[6.1]"][2]


def test_a_scenario_may_be_declared_to_be_refused(run: Run) -> None:
    entry = '{"cells": "x.bpf.o::scenario::one", "stage": "attach", "errno": "EINVAL"}'
    answers = f'"scenarios": ["one"], "expected": [{entry}]'
    assert _short(run(f'{{{answers}, "scenario::one": "ENOENT"}}', "-k", "one"))["scenario::one[6.1]"] == "failed"


def test_a_scenario_without_its_refusal_is_red(run: Run) -> None:
    entry = '{"cells": "*::scenario::*", "stage": "attach", "errno": "ENOENT"}'
    outcomes = run(f'{{"scenarios": ["one"], "expected": [{entry}]}}', "-k", "one")
    assert "attach succeeded, and is declared to be refused" in outcomes["scenario::one[6.1]"][2]


def test_an_optional_program_is_not_in_the_whole(tmp_path: Path, compiled: Path) -> None:
    """One of SEC("?xdp") is loaded alone, also when its capabilities are measured."""
    tried = Trial(Foreign(compiled, "x.bpf.o", bpf_elf.read(compiled), ObjectSettings(), Place()), tmp_path)
    assert not tried.is_in_whole("here")
    tried._whole = LoadedObject({"here": Program("here", 1)}, {}, {})
    assert tried.is_in_whole("here")
    assert not tried.is_in_whole("optional")
