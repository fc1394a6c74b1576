"""Mutants: the list of mistakes, the mutator, the compiler, the record, and what is right and wrong at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kernel_matrix.commands.mutation import command, noticing, outcomes, record, running, sampling, table
from kernel_matrix.commands.mutation.guests import GuestLost
from kernel_matrix.commands.mutation.making import code, compiling, generated, mistakes
from kernel_matrix.commands.mutation.making.cache import Cache, Compiled
from kernel_matrix.commands.mutation.making.compiling import Objects
from kernel_matrix.commands.mutation.making.mistakes import Equivalent
from kernel_matrix.commands.mutation.making.mutant import Mutant
from kernel_matrix.commands.mutation.outcomes import Fate, Outcome
from kernel_matrix.commands.mutation.running import Kernel
from kernel_matrix.objects import build
from kernel_matrix.shared.errors import HarnessError, ManifestError, ToolMissing
from kernel_matrix.shared.outcomes.mutants import Result, Trial
from tests.projects import HERE, below

SOURCE = "int first;\n\nint twice(int number)\n{\n\treturn number * 2;\n}\n"
SOURCES = HERE.sources or Path()


def mutant(name: str = "m", program: str = "p", changed: str = SOURCE.replace("2", "3"), breaks: str = "") -> Mutant:
    return Mutant(program, name, "p.bpf.c", SOURCE, changed, breaks)


# -- a mutant


def test_a_mutant_shows_its_line_and_its_change() -> None:
    shown = mutant()
    assert (shown.id, shown.line) == ("p/m", 5)
    assert shown.diff == ("-\treturn number * 2;", "+\treturn number * 3;")
    assert shown.change == "- return number * 2; | + return number * 3;"


def test_a_removed_last_line_has_a_number() -> None:
    assert mutant(changed=SOURCE.removesuffix("}\n")).line == 6


# -- the list of mistakes


def mistake(folder: Path, **fields: str) -> tuple[Mutant, ...]:
    entry = {"text": "number * 2", "replacement": "number * 3", "breaks": "It doubles.", **fields}
    lines = "".join(f"{key} = {value!r}\n" for key, value in entry.items())
    (folder / "p.toml").write_text(f"[thrice]\n{lines}")
    (folder / "p.bpf.c").write_text(SOURCE)
    return mistakes.read(folder, "p", folder)


def test_a_mistake_of_the_list_is_a_mutant(tmp_path: Path) -> None:
    assert mistake(tmp_path) == (Mutant("p", "thrice", "p.bpf.c", SOURCE, SOURCE.replace("2", "3"), "It doubles."),)


def test_a_program_without_a_list_has_no_mistakes(tmp_path: Path) -> None:
    assert mistakes.read(tmp_path, "p", tmp_path) == ()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"text": "int "}, "its text occurs 3 times in p.bpf.c, not once"),
        ({"text": "gone"}, "its text occurs 0 times in p.bpf.c, not once"),
        ({"replacement": "number * 2"}, "its replacement is its text"),
        ({"breaks": " "}, "breaks: which sentence of the contract?"),
        ({"file": "p.h"}, "p.h: No such file or directory"),
        ({"fille": "p.h"}, "unknown field `fille`"),
    ],
)
def test_a_wrong_entry_of_the_list_is_one_line(tmp_path: Path, fields: dict[str, str], why: str) -> None:
    with pytest.raises(ManifestError) as raised:
        mistake(tmp_path, **fields)
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_lists_of_this_project_fit_its_programs() -> None:
    folder = HERE.root / HERE.mutation.mistakes
    listed = [mutant for program in HERE.mutation.tests for mutant in mistakes.read(folder, program, SOURCES)]
    # a list that fits is one whose every text occurs once; at least 60 mistakes are held against the suites
    assert len(listed) >= 60
    assert {mutant.program for mutant in listed} == set(HERE.mutation.tests)
    assert {path.stem for path in folder.glob("*.toml")} <= {*HERE.mutation.tests, "equivalent", "idle"}


def test_the_equivalent_mutants_of_this_project_exist() -> None:
    folder = HERE.root / HERE.mutation.mistakes
    known = {mutant.id: mutant for mutant in command.all_mutants(HERE, ())}
    mistakes.check_equivalents(mistakes.equivalents(folder), known, folder)


def test_an_equivalent_mutant_needs_an_argument(tmp_path: Path) -> None:
    (tmp_path / "equivalent.toml").write_text('["p/m"]\nchange = "x"\nbecause = ""\n')
    with pytest.raises(ManifestError, match="p/m: because: why can no test notice it"):
        mistakes.equivalents(tmp_path)


def test_an_equivalent_mutant_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="p/gone: there is no such mutant any more"):
        mistakes.check_equivalents({"p/gone": Equivalent("x", "y")}, {"p/m": mutant()}, tmp_path)


def test_an_equivalent_mutant_with_another_change_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="p/m: its change is '- return number"):
        mistakes.check_equivalents({"p/m": Equivalent("x", "y")}, {"p/m": mutant()}, tmp_path)


def test_a_mutant_may_be_equivalent_where_a_feature_is_missing(tmp_path: Path) -> None:
    declared = {"p/always": Equivalent("x", "y"), "p/here": Equivalent("x", "y", without="runts")}
    assert mistakes.equivalent_on(declared, {"other"}) == {"p/always", "p/here"}
    assert mistakes.equivalent_on(declared, {"runts"}) == {"p/always"}
    mistakes.check_features(declared, {"runts"}, tmp_path)
    with pytest.raises(ManifestError, match="p/here: without: unknown feature 'runts'"):
        mistakes.check_features(declared, {"other"}, tmp_path)


def test_a_mutant_may_be_equivalent_where_a_feature_is(tmp_path: Path) -> None:
    (tmp_path / "equivalent.toml").write_text('["p/m"]\nchange = "x"\nbecause = "y"\nwith = "counted"\n')
    declared = mistakes.equivalents(tmp_path)
    assert mistakes.equivalent_on(declared, {"counted", "other"}) == {"p/m"}
    assert mistakes.equivalent_on(declared, {"other"}) == frozenset()
    mistakes.check_features(declared, {"counted"}, tmp_path)
    with pytest.raises(ManifestError, match="p/m: with: unknown feature 'counted'"):
        mistakes.check_features(declared, {"other"}, tmp_path)


def test_equivalents_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    mistakes.check_equivalents({"other/m": Equivalent("x", "y")}, {"p/m": mutant()}, tmp_path)


# -- the mutator


def test_generated_mutants_keep_their_names_when_lines_move() -> None:
    names = [made.name for made in generated.of_source("p", "p.bpf.c", SOURCE)]
    moved = [made.name for made in generated.of_source("p", "p.bpf.c", f"int other;\n{SOURCE}")]
    assert len(set(names)) == len(names) > 10
    assert set(names) < set(moved)


def test_generated_mutants_of_equal_lines_have_different_names() -> None:
    text = "int a(int x)\n{\n\treturn x + x;\n}\nint b(int x)\n{\n\treturn x + x;\n}\n"
    made = list(generated.of_source("p", "p.bpf.c", text))
    assert len({mutant.name for mutant in made}) == len(made)
    lines = [mutant.line for mutant in made if "return" in mutant.change]
    assert lines.count(3) == lines.count(7) > 3


def test_a_generated_mutant_changes_one_line() -> None:
    for made in generated.of_source("p", "p.bpf.c", SOURCE):
        assert sum(line.startswith("-") for line in made.diff) <= 1


@pytest.mark.parametrize(
    ("line", "changed", "of_code"),
    [
        ('char LICENSE[] SEC("license") = "Dual BSD/GPL";', 'char LICENSE[] SEC("license") = "Dual BSD+GPL";', False),
        ('SEC("xdp")', 'SEC("xdq")', False),
        ('SEC("xdp")', "", True),
        ("__type(key, __u32);", "__type(key, __u(32+1));", False),
        ("__u32 key = 0;", "__u32 key = (0+1);", True),
        ("__u8 destination[6];", "__u8 destination[1];", True),
        ("counter->ipv4++;", "counter->ipv4--;", True),
        ("counter->ipv4++;", "", True),
    ],
)
def test_a_generated_change_is_one_of_the_code(line: str, changed: str, *, of_code: bool) -> None:
    """Not of what is inside a string or a name."""
    assert generated.is_of_code(line, changed) == of_code


# -- the choice


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    mutants = [mutant(str(number)) for number in range(100)]
    once = sampling.chosen(mutants, (), 10, 7)
    assert once == sampling.chosen(list(reversed(mutants)), (), 10, 7)[::-1]
    assert once != sampling.chosen(mutants, (), 10, 8)
    assert len(set(once)) == 10
    assert sampling.chosen(mutants, (), 1000, 7) == tuple(mutants)


def test_all_mutants_are_chosen_without_options() -> None:
    assert sampling.chosen([mutant("a"), mutant("b")], (), None, 0) == (mutant("a"), mutant("b"))


def test_a_mutant_is_chosen_by_its_id() -> None:
    assert sampling.chosen([mutant("a"), mutant("b")], ["p/b", "p/b"], 1, 0) == (mutant("b"),)


@pytest.mark.parametrize(
    ("only", "sample", "why"), [(["p/x"], None, "--mutant p/x: there is no such"), ([], 0, "--sample 0: must be at")]
)
def test_a_wrong_choice_is_one_line(only: list[str], sample: int | None, why: str) -> None:
    with pytest.raises(ManifestError, match=why):
        sampling.chosen([mutant()], only, sample, 0)


# -- the compiler

PROGRAM = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "p.h"
struct record *record_layout SEC(".layouts");
SEC("xdp")
int first(struct xdp_md *ctx)
{
\tint length = ctx->data_end - ctx->data;

\treturn length > 60 ? XDP_PASS : XDP_DROP;
}
char LICENSE[] SEC("license") = "GPL";
"""
HEADER = "struct part {\n\t__u64 bytes;\n};\nstruct record {\n\tstruct part part;\n};\n"


def compiled(tmp_path: Path, *changes: tuple[str, str], file: str = "p.bpf.c") -> Objects:
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf" / "p.bpf.c").write_text(PROGRAM)
    (tmp_path / "bpf" / "p.h").write_text(HEADER)
    text = {"p.bpf.c": PROGRAM, "p.h": HEADER}[file]
    project = below(tmp_path, sources=tmp_path / "bpf", flags=("-Wall", "-Werror"))
    mutants = [Mutant("p", str(at), file, text, text.replace(*change)) for at, change in enumerate(changes)]
    assert all(mutant.changed != text for mutant in mutants)
    return compiling.compile_all(project, mutants, Cache(tmp_path / "cache"), lambda _: None)


def test_the_compiler_sorts_mutants(tmp_path: Path) -> None:
    objects = compiled(
        tmp_path,
        ("length > 60", "length > 61"),
        ("length > 60", "61 < length"),
        ("length > 60", "length >= 61"),
        ("length > 60", "length > width"),
        ("int length", "long length"),
    )
    assert set(objects.to_try) == {"p/0", "p/4"}
    assert objects.twins == {"p/1": "p/0"}
    assert objects.same_code == {"p/2"}
    assert set(objects.not_compiling) == {"p/3"}
    assert "error: use of undeclared identifier 'width'" in objects.not_compiling["p/3"]
    assert set(objects.programs) == {"p"}


def test_a_warning_does_not_save_a_mutant_from_tests(tmp_path: Path) -> None:
    objects = compiled(tmp_path, ("length > 60 ? XDP_PASS : XDP_DROP", "XDP_PASS"))
    assert set(objects.to_try) == {"p/0"}


def test_a_changed_header_is_compiled_into_its_program(tmp_path: Path) -> None:
    assert set(compiled(tmp_path, ("__u64", "__u32"), file="p.h").to_try) == {"p/0"}


@pytest.mark.parametrize("change", [("bytes", "octets"), ("struct part ", "struct piece ")])
def test_another_name_in_a_layout_is_another_object(tmp_path: Path, change: tuple[str, str]) -> None:
    assert set(compiled(tmp_path, change, file="p.h").to_try) == {"p/0"}


def test_what_was_compiled_is_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [("length > 60", "length > 61"), ("length > 60", "length > width")]
    first = compiled(tmp_path, *changes)
    build.compiler()
    monkeypatch.setenv("PATH", "")
    shutil.rmtree(tmp_path / "bpf")
    assert compiled(tmp_path, *changes) == first


def test_another_header_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(tmp_path, ("length > 60", "length > 61"))
    build.compiler()
    monkeypatch.setenv("PATH", "")
    shutil.rmtree(tmp_path / "bpf")
    monkeypatch.setitem(globals(), "HEADER", HEADER + "struct other;\n")
    with pytest.raises(ToolMissing):
        compiled(tmp_path, ("length > 60", "length > 61"))


def test_the_cache_deletes_what_was_unused_for_longest(tmp_path: Path) -> None:
    kept = Cache(tmp_path)
    for name in ("a", "b", "c"):
        kept.put(name, Compiled(os.urandom(1000), "digest"))
        os.utime(tmp_path / f"{name}.mutant", (ord(name), ord(name)))
    assert kept.get("a")  # which is used by that
    kept.prune(2500)
    assert [bool(kept.get(name)) for name in ("a", "b", "c")] == [True, False, True]
    kept.prune(2500)
    assert kept.get("c") is not None


def test_a_comment_changes_no_code(tmp_path: Path) -> None:
    source = tmp_path / "p.bpf.c"
    digests = []
    for text in (PROGRAM, PROGRAM.replace("\treturn", "\t/* a comment\n\t * of two lines */\n\treturn")):
        source.write_text(text)
        (tmp_path / "p.h").write_text(HEADER)
        build.compile_source(source, tmp_path / "p.o", [tmp_path], root=tmp_path)
        digests.append(code.digest(tmp_path / "p.o"))
    assert digests[0] == digests[1]


# -- what became of them

DEAD = Result(failed=(("suites/x.py::test[6.1-p]", "assert 1 == 2"),), tests=3)


def test_a_failed_test_is_a_kill_by_its_name_on_every_kernel() -> None:
    assert outcomes.of_result(DEAD, "6.1") == Outcome(Fate.KILLED, "suites/x.py::test[p]", "assert 1 == 2")


def test_a_refusal_is_no_kill() -> None:
    refused = Result(DEAD.failed, "load: EACCES: R1 invalid mem access", 1)
    assert outcomes.of_result(refused, "6.1") == Outcome(Fate.REFUSED, "load: EACCES: R1 invalid mem access")


def test_a_mutant_that_no_test_fails_with_survives() -> None:
    assert outcomes.of_result(Result(tests=3), "6.1") == Outcome(Fate.SURVIVED)


def test_a_guest_that_dies_is_a_kill_by_its_loss() -> None:
    lost = outcomes.lost("suites/x.py::test[6.1]", "6.1", "the kernel panicked: Oops")
    assert lost == Outcome(Fate.KILLED, "guest lost in suites/x.py::test", "the kernel panicked: Oops")


class Killing(Kernel):
    """A kernel on which a test kills everything."""

    def __init__(self) -> None:
        """Have no guests."""

    def run(self, work: Sequence[running.Try], keep: Callable[[str, Outcome], object]) -> dict[str, Outcome]:
        return {item.mutant.id: Outcome(Fate.KILLED, "t") for item in work}


def test_a_twin_of_a_mutant_that_is_recorded_has_its_outcome() -> None:
    """With --new the one that was to be tried for both is left out."""
    objects = Objects(to_try={"p/old": b"", "p/first": b""}, twins={"p/twin": "p/old", "p/second": "p/first"})
    mutants = [mutant("twin"), mutant("first"), mutant("second")]
    before = {"p/old": Outcome(Fate.SURVIVED)}
    results = command.on_kernel(Killing(), "6.1", mutants, objects, before, dict)
    killed = Outcome(Fate.KILLED, "t")
    assert results == {"p/twin": Outcome(Fate.SURVIVED), "p/first": killed, "p/second": killed}


def test_only_a_survivor_can_be_equivalent() -> None:
    survived, killed = Outcome(Fate.SURVIVED), Outcome(Fate.KILLED, "x")
    assert outcomes.judged(survived, equivalent=True) == Outcome(Fate.EQUIVALENT)
    assert outcomes.judged(survived, equivalent=False) == survived
    assert outcomes.judged(killed, equivalent=True) == killed


@pytest.mark.parametrize(
    ("outcome", "declared", "recorded", "said_of_it"),
    [
        (Outcome(Fate.SURVIVED), False, Outcome(Fate.KILLED, "t"), "survived (killed by t in the record)"),
        (Outcome(Fate.SURVIVED), False, Outcome(Fate.SURVIVED), "survived"),
        (Outcome(Fate.SURVIVED), False, None, "survived"),
        (Outcome(Fate.EQUIVALENT), True, None, ""),
        (Outcome(Fate.KILLED, "t"), True, None, "declared equivalent, but killed by t"),
        (Outcome(Fate.REFUSED, "t"), True, None, "declared equivalent, but refused by t"),
        (Outcome(Fate.KILLED, "u"), False, Outcome(Fate.KILLED, "t"), ""),
        (Outcome(Fate.NOT_COMPILING), False, Outcome(Fate.KILLED, "t"), ""),
        (Outcome(Fate.SAME_CODE), True, None, ""),
    ],
)
def test_survivors_and_noticed_equivalents_are_red(
    outcome: Outcome, declared: bool, recorded: Outcome | None, said_of_it: str
) -> None:
    before = {"p/m": recorded} if recorded else {}
    wrong = outcomes.complaints("6.1", {"p/m": outcome}, {"p/m"} if declared else (), before)
    assert [complaint.text for complaint in wrong] == ([said_of_it] if said_of_it else [])


# -- the record


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "baselines" / "mutants.json"
    written = {"6.1": {"p/a": Outcome(Fate.KILLED, "x.py::test[a: b]"), "p/b": Outcome(Fate.SURVIVED)}}
    record.write(path, written)
    assert record.read(path) == written
    assert path.read_text().count("\n") == len(["{", "6.1", "p", "a", "b", "}", "}", "}"])


def test_the_record_leaves_out_what_tools_print(tmp_path: Path) -> None:
    path = tmp_path / "mutants.json"
    record.write(
        path, {"6.1": {"p/a": Outcome(Fate.NOT_COMPILING, "/tmp/x: error"), "p/b": Outcome(Fate.REFUSED, "R1")}}
    )
    assert record.read(path)["6.1"] == {"p/a": Outcome(Fate.NOT_COMPILING), "p/b": Outcome(Fate.REFUSED)}


def test_a_missing_record_is_empty(tmp_path: Path) -> None:
    assert record.read(tmp_path / "mutants.json") == {}


@pytest.mark.parametrize("text", ["{", '{"6.1": {"p": {"a": "eaten"}}}', '{"6.1": ["p"]}'])
def test_a_damaged_record_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mutants.json"
    path.write_text(text)
    with pytest.raises(ManifestError) as raised:
        record.read(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_a_sample_updates_only_its_own_part() -> None:
    dead, alive = Outcome(Fate.KILLED, "t"), Outcome(Fate.SURVIVED)
    old = {"6.1": {"p/a": dead, "p/gone": dead, "q/a": dead}, "5.10": {"p/a": dead}}
    new = record.updated(old, "6.1", {"p/b": alive}, {"p/a", "p/b"})
    assert new == {"6.1": {"p/a": dead, "q/a": dead, "p/b": alive}, "5.10": {"p/a": dead}}


# -- the end


def test_a_complaint_shows_place_change_and_sentence() -> None:
    mistake_made = mutant(breaks="It doubles.")
    lines = table.wrong([outcomes.Complaint("6.1", "p/m", "survived")], {"p/m": mistake_made})
    assert list(lines) == [
        "6.1: p/m: survived",
        "  p.bpf.c:5",
        "  -\treturn number * 2;",
        "  +\treturn number * 3;",
        "  breaks: It doubles.",
    ]


def test_the_tests_that_kill_are_counted() -> None:
    dead = [Outcome(Fate.KILLED, "a"), Outcome(Fate.KILLED, "b"), Outcome(Fate.KILLED, "b"), Outcome(Fate.SURVIVED)]
    assert [line.split() for line in table.killers(dead)] == [["2", "b"], ["1", "a"]]


def test_the_table_has_each_fate_of_each_program() -> None:
    mutants = [mutant("a"), mutant("b"), mutant("c", breaks="x")]
    fates = {"p/a": Outcome(Fate.KILLED, "t"), "p/b": Outcome(Fate.SURVIVED), "p/c": Outcome(Fate.EQUIVALENT)}
    made = table.counts("6.1", mutants, fates)
    rows = list(zip(*[list(column.cells) for column in made.columns], strict=True))
    # a fate that nothing had has no column
    assert [column.header for column in made.columns] == [
        *("program", "mutants", "killed", "equivalent", "survived", "all"),
    ]
    assert rows == [("p", "generated", "1", "", "1", "2"), ("p", "mistakes", "", "1", "", "1")]


class LostGuests:
    """A warm guest that is lost as often as there are endings, each with the test that ran; then a trial passes."""

    def __init__(self, *running: str) -> None:
        self.endings = list(running)
        self.trials: list[Trial] = []

    def try_object(self, _data: bytes, trial: Trial) -> Result:
        self.trials.append(trial)
        if self.endings:
            raise GuestLost("panic", self.endings.pop(0))
        return Result(tests=1)


def tried(warm: LostGuests, lines: list[str]) -> Result | Outcome:
    """Try an object in a guest."""
    guest = SimpleNamespace(kernel="6.1", ending_path=Path("ending"))
    kernel = Kernel(cast("Any", SimpleNamespace(guest=guest)), lines.append)
    trial = Trial("counter", ("test_a.py",), (), 1.0, True)
    return kernel._tried(cast("Any", warm), b"", trial, 2)


def test_a_guest_lost_before_its_first_test_is_replaced() -> None:
    """It is not the object's doing: reported, and the object is tried in another one."""
    lines: list[str] = []
    assert tried(LostGuests(""), lines) == Result(tests=1)
    assert lines == ["6.1: a guest was lost before its first test: panic; another one begins"]


def test_guests_that_are_lost_again_without_a_test_end_the_run() -> None:
    """Whatever it is, it would go on."""
    with pytest.raises(HarnessError, match=r"6\.1: its guest was lost: panic"):
        tried(LostGuests("", ""), [])


def test_a_guest_lost_twice_in_a_test_is_killed_by_it() -> None:
    """The second time that test is the first to run; a guest lost before any test does not count."""
    warm = LostGuests("test_a.py::test_b", "", "test_a.py::test_b")
    outcome = tried(warm, [])
    assert isinstance(outcome, Outcome)
    assert (outcome.fate, outcome.by) == (Fate.KILLED, "guest lost in test_a.py::test_b")
    assert [trial.first[:1] for trial in warm.trials] == [(), ("test_a.py::test_b",), ("test_a.py::test_b",)]


# -- which tests notice a mutant


def test_the_tests_of_a_folder_and_of_a_file_are_functions(tmp_path: Path) -> None:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites/test_b.py").write_text(
        "def test_x(): ...\ndef helper(): ...\nclass A:\n    def test_y(self): ...\n"
    )
    (tmp_path / "suites/helper.py").write_text("def test_z(): ...\n")
    (tmp_path / "test_a.py").write_text("def test_v(): ...\n")
    assert noticing.functions_in(tmp_path, ["suites", "test_a.py"]) == ("suites/test_b.py::test_x", "test_a.py::test_v")


def test_a_record_of_mutants_names_the_functions_that_killed() -> None:
    killed = {"p/a": Outcome(Fate.KILLED, "t.py::test_x[libbpf-1]"), "p/b": Outcome(Fate.SURVIVED, "t.py::test_y")}
    assert noticing.killers({"6.1": killed}) == {"t.py::test_x"}


def test_each_test_notices_a_mutant_or_says_why_not() -> None:
    tests = ["killing", "noticing", "idle", "silent", "wrongly idle"]
    noticed = {"noticing": "p/a on 6.1", "wrongly idle": "p/b on 6.1"}
    assert list(noticing.complaints(tests, ["killing"], noticed, ["idle", "gone", "wrongly idle"])) == [
        "silent: notices no mutant, and idle.toml does not say why",
        "idle.toml: gone: there is no such test",
        "idle.toml: wrongly idle: it notices a mutant: p/b on 6.1",
    ]


def test_the_tests_of_this_project_notice_mutants_or_say_why_not() -> None:
    """What is missing here is found out by `mutants --tests --update`."""
    tests = noticing.functions_in(HERE.root, [path for paths in HERE.mutation.tests.values() for path in paths])
    idle = mistakes.idle_tests(HERE.root / HERE.mutation.mistakes)
    killing, noticed = noticing.killers(record.read(HERE.mutants)), noticing.read(HERE.mutant_tests)
    assert list(noticing.complaints(tests, killing, noticed, idle)) == []
    assert sorted(set(noticed) - set(tests)) == []


def test_what_tests_noticed_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "baselines/mutant_tests.json"
    assert noticing.read(path) == {}
    noticing.write(path, {"t.py::b": "p/b on 6.1", "t.py::a": "p/a on 6.1"})
    assert noticing.read(path) == {"t.py::a": "p/a on 6.1", "t.py::b": "p/b on 6.1"}
    path.write_text("{")
    with pytest.raises(ManifestError, match=r"mutant_tests\.json"):
        noticing.read(path)


def test_an_idle_test_needs_a_reason(tmp_path: Path) -> None:
    assert mistakes.idle_tests(tmp_path) == {}
    (tmp_path / "idle.toml").write_text('["t.py::test_x"]\nbecause = " "\n')
    with pytest.raises(ManifestError, match="why is it there"):
        mistakes.idle_tests(tmp_path)


class Failing:
    """A warm guest whose trials fail with what is set, and pass with the program's own object."""

    def __init__(self, *results: Result) -> None:
        self.results = list(results)
        self.trials: list[tuple[bytes, Trial]] = []
        self.cleared: set[str] = set()

    def try_object(self, data: bytes, trial: Trial) -> Result:
        self.trials.append((data, trial))
        return Result(tests=1) if data == b"program" else self.results.pop(0)


def noticed_by(warm: Failing, *tests: str) -> list[str]:
    """Return the functions among these that notice a mutant in the guest."""
    project = SimpleNamespace(mutation=SimpleNamespace(tests={"p": ("suites",)}))
    target = SimpleNamespace(guest=SimpleNamespace(kernel="6.1", ending_path=Path("ending")), project=project)
    kernel = Kernel(cast("Any", target), print)
    kernel._seconds, kernel._programs = {"p": 1.0}, {"p": b"program"}
    return kernel._noticing(cast("Any", warm), running.Try(mutant(), b"mutant"), tests)


def test_every_failed_function_has_noticed() -> None:
    """To the end of the trial; each is seen to pass without the mutant."""
    warm = Failing(Result((("t.py::a[6.1-1]", ""), ("t.py::a[6.1-2]", ""), ("t.py::b[6.1]", "")), tests=4))
    assert noticed_by(warm, "t.py::a", "t.py::b", "t.py::c") == ["t.py::a", "t.py::b"]
    (_, first), *passed = warm.trials
    assert (first.tests, first.stops) == (("t.py::a", "t.py::b", "t.py::c"), False)
    assert [(data, trial.tests) for data, trial in passed] == [
        (b"program", ("t.py::a[6.1-1]",)),
        (b"program", ("t.py::a[6.1-2]",)),
        (b"program", ("t.py::b[6.1]",)),
    ]


def test_what_a_limit_has_decided_is_noticed_if_it_happens_again() -> None:
    warm = Failing(Result((("t.py::a[6.1]", ""), ("t.py::b[6.1]", "")), tests=2, late=True), Result(tests=2))
    assert noticed_by(warm, "t.py::a", "t.py::b") == []
    assert [(trial.tests, trial.limits) for _, trial in warm.trials][1] == (("t.py::a", "t.py::b"), 1.0)


def test_nothing_notices_what_the_verifier_refuses() -> None:
    assert noticed_by(Failing(Result((("t.py::a[6.1]", ""),), refused="EACCES", tests=1)), "t.py::a") == []
