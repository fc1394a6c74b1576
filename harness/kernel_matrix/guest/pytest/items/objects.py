"""An object file is a test file: each of its programs has items that load it, attach it and measure it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kernel_matrix.guest.bpf import kernel_modules, leaks
from kernel_matrix.guest.bpf.diagnosis import trying
from kernel_matrix.guest.bpf.foreign import environment, least, modules
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.hooks import targets
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.trial import Trial
from kernel_matrix.guest.bpf.foreign.undeclared import NoTarget, Undeclared
from kernel_matrix.guest.bpf.step_error import StepError, errno_name
from kernel_matrix.guest.pytest import marks, spent
from kernel_matrix.guest.pytest.marks import GUEST_FACTS, REFUSED_PROPERTY
from kernel_matrix.shared.bpf import bpf_elf, scenario
from kernel_matrix.shared.bpf.bpf_elf import BpfFile
from kernel_matrix.shared.bpf.costs import COSTS
from kernel_matrix.shared.bpf.object_table import Expected, ObjectTable
from kernel_matrix.shared.bpf.scenario import Scenario
from kernel_matrix.shared.channel.protocol import FACTS, OBSERVED
from kernel_matrix.shared.outcomes.cells import Outcome
from kernel_matrix.shared.outcomes.expect import OUTCOME_PROPERTY
from kernel_matrix.shared.outcomes.features import GuestFacts, plain_kernel
from kernel_matrix.shared.project import ENGINE_OBJECTS, build_folder

#: the node that stands for an object without programs
WHOLE = "object"
#: what is done with each program; the second is not done with a program that is called
_ACTS = ("load", "attach", "capabilities", "cost")
#: what a refusal to attach does not concern, and the stages of such a refusal
_LOADING, _ATTACHING = frozenset({"load", "cost"}), frozenset({"attach", "read"})

#: the kernels that items are collected for: in a guest its own
KERNELS = pytest.StashKey[tuple[str, ...]]()
#: what the project's table says of objects, on a host that only collects
TABLE = pytest.StashKey[ObjectTable]()

_Refusal = StepError | Undeclared


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect an object that the command line or the table names."""
    named = parent.session.isinitpath(file_path)
    if not named or file_path.is_relative_to(build_folder() / ENGINE_OBJECTS):
        return None
    # Rust's objects have no suffix
    if file_path.suffix != ".o" and not (file_path.suffix == "" and bpf_elf.is_object(file_path)):
        return None
    node: pytest.Collector = ObjectFile.from_parent(parent, path=file_path)
    return node


class ObjectFile(pytest.File):
    """An object file; it is loaded when its first item runs, and unloaded behind its last one."""

    def collect(self) -> Iterator[pytest.Collector]:
        """Yield a node for each program, one for an object without programs."""
        self.file = bpf_elf.read(self.path)
        nodes: list[pytest.Collector] = [
            ProgramNode.from_parent(self, name=name) for name in self.file.programs or (WHOLE,)
        ]
        if self.table.scenarios_of(self.nodeid):
            nodes.append(ScenarioNode.from_parent(self, name=scenario.NODE))
        tests = list(cells_of(self.nodeid, self.file, self.table))
        for entry in self.table.expected:
            # one about several files was held against all of them before any guest began, if the table names them
            if entry.file_name == self.path.name and entry.concerns(self.nodeid) and not has_cells(entry, tests):
                raise pytest.UsageError(f"expect {entry.cells}: {self.nodeid} has no such cell")
        yield from nodes

    @property
    def facts(self) -> GuestFacts | None:
        """What the guest knows of its kernel; None on a host that only collects."""
        return self.config.stash.get(GUEST_FACTS, None)

    @property
    def table(self) -> ObjectTable:
        """What the project's table says of objects."""
        return self.facts.objects if self.facts else self.config.stash.get(TABLE, ObjectTable())

    def setup(self) -> None:
        """Prepare the guest for the object."""
        self._stack = ExitStack()
        environment.show_configuration()
        self._before = leaks.present()
        self.pins = self._stack.enter_context(environment.bpffs())
        settings = self.table.of(self.nodeid)
        wanted = settings.modules or modules.needed(self.file, settings)
        self._stack.enter_context(kernel_modules.loaded(self.nodeid, wanted))
        self.place = Place()
        self._stack.callback(self.place.close)
        self.trial = Trial(Foreign(self.path, self.path.name, self.file, settings, self.place), self.pins)
        self._stack.callback(self.trial.close)

    def teardown(self) -> None:
        """Unload the object; what it leaves in the kernel fails its last item."""
        self._stack.close()
        spent.fail_for(self.config, leaks.wait_for_release(self._before))


class ProgramNode(pytest.Collector):
    """A program of an object."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield what is done with the program, for this guest's kernel."""
        parent = self.parent
        assert isinstance(parent, ObjectFile)
        for act in _acts(parent.file.programs.get(self.name)):
            for name in identities(act, self.config.stash[KERNELS], getattr(self.config.option, "repeat", 1)):
                item = ProgramItem.from_parent(self, name=name, act=act)
                item.declare(parent.facts)
                yield item


def identities(act: str, kernels: tuple[str, ...], times: int) -> Iterator[str]:
    """Yield the names of an item: with each kernel, and with ``--repeat`` each repetition."""
    for kernel in kernels:
        yield from [f"{act}[{kernel}]"] if times == 1 else (f"{act}[{kernel}-#{n}]" for n in range(1, times + 1))


def plain(nodeid: str) -> str:
    """Return a node id without its kernel."""
    return nodeid.partition("[")[0]


def _acts(section: str | None) -> Iterator[str]:
    """Yield what is done with a program of this section; None: with an object without programs."""
    if section is None:
        yield from _ACTS[:1]
        return
    called = section.lstrip("?").partition("/")[0] in targets.CALLED
    yield from (act for act in _ACTS if not (called and act == "attach"))


def cells_of(path: str, file: BpfFile, table: ObjectTable) -> Iterator[str]:
    """Yield the node ids of an object without the kernel, for its path in the project."""
    for name in file.programs or (WHOLE,):
        for act in _acts(file.programs.get(name)):
            yield f"{path}::{name}::{act}"
    for one in table.scenarios_of(path):
        yield f"{path}::{scenario.NODE}::{one.name}"


def has_cells(entry: Expected, tests: Collection[str]) -> bool:
    """Whether an expectation is about one of these cells, and about one of each program that it names."""
    about = [Expected(entry.cells, one_of=(name,)) for name in entry.one_of] or [Expected(entry.cells)]
    return all(any(one.holds(test, "", ()) for test in tests) for one in about)


class ScenarioNode(pytest.Collector):
    """The scenarios of an object."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield an item for each, for this guest's kernel."""
        parent = self.parent
        assert isinstance(parent, ObjectFile)
        for one in parent.table.scenarios_of(parent.nodeid):
            for name in identities(one.name, self.config.stash[KERNELS], getattr(self.config.option, "repeat", 1)):
                item = ScenarioItem.from_parent(self, name=name, act=scenario.NODE, scenario=one)
                item.declare(parent.facts)
                yield item


class ProgramItem(pytest.Item):
    """One thing that is done with one program."""

    def __init__(self, *, act: str, **of_item: object) -> None:
        super().__init__(**of_item)  # type: ignore[arg-type]
        self._act = act
        self._expected: tuple[Expected, ...] = ()

    def declare(self, facts: GuestFacts | None) -> None:
        """Read what the table expects of this cell."""
        if facts is None:
            return
        kernel = plain_kernel(facts.kernel)
        test = plain(self.nodeid)
        self._expected = tuple(
            entry
            for entry in facts.objects.expected
            if entry.holds(test, kernel, facts.features) and not (entry.stage in _ATTACHING and self._act in _LOADING)
        )
        for entry in self._expected:
            if entry.known_issue:
                self.add_marker(
                    marks.known_issue(kernel, reason="declared in the table", ref=entry.known_issue, raises=Exception)
                )

    def runtest(self) -> None:
        """Do it; raises StepError, Undeclared, AssertionError."""
        try:
            self._do()
        except (StepError, Undeclared) as error:
            if not self._excused(error):
                if isinstance(error, Undeclared):
                    self.user_properties.append((OUTCOME_PROPERTY, Outcome.UNDECLARED.value))
                raise
            self.user_properties.append(REFUSED_PROPERTY)
        else:
            for entry in self._expected:
                if entry.stage:
                    pytest.fail(f"{entry.stage} succeeded, and is declared to be refused with {entry.errno}", False)  # noqa: FBT003

    def _do(self) -> None:
        trial = self._object.trial
        if self._program is None:
            trial.whole()
            return
        if self._act == "attach":
            self._observe("attached", trial.attach(self._program, self._object.place))
        elif self._act == "capabilities":
            self._judge_capabilities(trial, self._program)
        else:
            self._load(trial, self._program)

    def _load(self, trial: Trial, program: str) -> None:
        with trial.having(program) as obj:
            if self._act == "cost":
                cost = {f"{self._object.nodeid}::{program}": asdict(obj.cost(program))}
                self.user_properties.append((FACTS + COSTS, json.dumps(cost)))

    def _judge_capabilities(self, trial: Trial, program: str) -> None:
        needed = least.capabilities(trial, program, self._object.place)
        self._observe("capabilities", " ".join(needed) or "none")
        promised = self._object.table.capabilities
        if promised is None or not (more := [name for name in needed if name not in promised]):
            return
        # CAP_SYS_ADMIN, for one, stands for several
        if not least.suffice(trial, program, self._object.place, promised):
            listed = ", ".join(promised) or "none"
            pytest.fail(f"needs {' and '.join(more)}, and the table promises {listed}", pytrace=False)

    def _excused(self, error: _Refusal) -> bool:
        """Whether the table declares this refusal; what is declared and is another refusal is red."""
        for entry in self._expected:
            if isinstance(error, StepError) and (entry.stage, entry.errno) == (error.stage, errno_name(error.errno)):
                return True
            if entry.optional and isinstance(error, StepError | NoTarget):
                return True
            if entry.one_of and isinstance(error, StepError) and (other := self._attached(entry.one_of)):
                self._observe("instead", other)
                return True
        return False

    def _attached(self, names: Iterable[str]) -> str:
        """Return the first of these programs that attaches; empty when none does."""
        trial = self._object.trial
        for name in names:
            if name == self._program:
                continue
            try:
                trial.attach(name, self._object.place)
            except (StepError, Undeclared):
                continue
            return name
        return ""

    def _observe(self, name: str, value: str) -> None:
        self.user_properties.append((OBSERVED, json.dumps([name, value])))

    @property
    def _object(self) -> ObjectFile:
        node = self.getparent(ObjectFile)
        assert node is not None
        return node

    @property
    def _program(self) -> str | None:
        """The program's name; None for an object without programs."""
        assert self.parent is not None
        return self.parent.name if self._object.file.programs else None

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:  # type: ignore[override]
        """Return what was refused and why, without a traceback, which would show only the engine."""
        error = excinfo.value
        if isinstance(error, StepError):
            return "\n".join([trying.explained(error), str(error), *error.log.splitlines()[-_LINES:]])
        return str(error)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the location and name that pytest shows."""
        return self.path, None, self.nodeid.partition("::")[2]


class ScenarioItem(ProgramItem):
    """One scenario of the object."""

    def __init__(self, *, scenario: Scenario, **of_item: Any) -> None:  # noqa: ANN401 - pytest's
        super().__init__(**of_item)
        self._scenario = scenario

    def _do(self) -> None:
        # scapy and pyroute2 take a second to import in a guest
        from kernel_matrix.guest.bpf.foreign.scenarios import playing

        own = self._object
        if wrong := playing.play(self._scenario, own.trial.foreign, own.pins, own.place):
            # as an assertion of a test: a known issue may be that it fails
            raise AssertionError("\n".join(wrong))


#: libbpf's last lines that a failure's text has; the whole log is a section of its own
_LINES = 8
