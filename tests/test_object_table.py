"""What the table says of objects: read, looked up by path, carried to guests, and judged."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.config import manifest
from kernel_matrix.config import project as configuration
from kernel_matrix.diagnose.data import sections
from kernel_matrix.guest.bpf.foreign.configuring import encoded
from kernel_matrix.guest.pytest.items import objects
from kernel_matrix.objects import section_names
from kernel_matrix.plan.bpf import objects as plan_objects
from kernel_matrix.relay import payload
from kernel_matrix.shared.bpf.object_table import Expected, ObjectSettings, ObjectTable
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project
from tests.projects import HERE, below

TABLE = """
objects = ["out/*.bpf.o"]
capabilities = ["CAP_BPF"]

[object."x.bpf.o"]
modules = ["nf_conntrack"]
variables = { slots = 1, pair = [1, 2], on = true }
max-entries = { tasks = 1024, each_cpu = "cpus" }
value-sizes = { stacks = 1016 }
inner-maps = { outer = "like" }
sections = { flows = "tc" }
targets = { on_write = "/bin/sh:main" }
replaces = { mine = "other.bpf.o:entry" }

[[expect]]
cells = "out/x.bpf.o::flows::*"
kernels = ["5.10"]
refused = { stage = "load", errno = "EINVAL" }

[[expect]]
cells = "*::old::attach"
without = "tcx"
one-of = ["old", "new"]
"""


def project(folder: Path, text: str = TABLE) -> Project:
    (folder / "kernel-matrix.toml").write_text(text)
    read = configuration.load(folder)
    assert read is not None
    return read


def test_the_table_is_read(tmp_path: Path) -> None:
    read = project(tmp_path)
    assert read.objects == ("out/*.bpf.o",)
    assert read.tests == ()
    assert read.object_table.capabilities == ("CAP_BPF",)
    assert read.object_table.settings["x.bpf.o"] == ObjectSettings(
        ("nf_conntrack",),
        {"slots": 1, "pair": (1, 2), "on": True},
        {"tasks": 1024, "each_cpu": "cpus"},
        {"outer": "like"},
        {"flows": "tc"},
        {"on_write": "/bin/sh:main"},
        {"mine": "other.bpf.o:entry"},
        value_sizes={"stacks": 1016},
    )
    assert read.object_table.expected == (
        Expected("out/x.bpf.o::flows::*", ("5.10",), "", "load", "EINVAL"),
        Expected("*::old::attach", without="tcx", one_of=("old", "new")),
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('objects = ["/x.o"]', "not a path below the project"),
        ('objects = ["../x.o"]', "not a path below the project"),
        ('[object."x.o"]\nmax-entries = { a = 0 }', ">= 1"),
        ('[object."x.o"]\nmax-entries = { a = "many" }', "many"),
        ('[object."x.o"]\nvalue-sizes = { a = 0 }', ">= 1"),
        ('[object."x.o"]\nsize = 1', "size"),
        ('[[expect]]\ncells = "a"', "one of refused, optional, one-of and known-issue"),
        ('[[expect]]\ncells = "a"\noptional = true\nknown-issue = "x"', "one of refused, optional"),
        ('[[expect]]\ncells = "a"\nrefused = { stage = "load", errno = "ENONE" }', "no errno ENONE"),
        ('[[expect]]\ncells = "a"\nrefused = { stage = "open", errno = "LIBBPF_ERRNO__NONE" }', "LIBBPF_ERRNO__NONE"),
        ('[[expect]]\ncells = "a"\nrefused = { stage = "run", errno = "EINVAL" }', "run"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ManifestError, match=r"kernel-matrix\.toml") as error:
        project(tmp_path, text)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["EACCES", "EOPNOTSUPP", "ENOTSUPP", "LIBBPF_ERRNO__ENDIAN"])
def test_every_errno_of_a_refusal_can_be_declared(tmp_path: Path, name: str) -> None:
    read = project(tmp_path, f'[[expect]]\ncells = "a"\nrefused = {{ stage = "open", errno = "{name}" }}')
    assert read.object_table.expected == (Expected("a", stage="open", errno=name),)


def test_tests_stay_where_the_table_names_them(tmp_path: Path) -> None:
    assert project(tmp_path, "").tests == ("tests",)
    assert project(tmp_path, 'objects = ["*.o"]\ntests = ["kernel"]').tests == ("kernel",)


def test_objects_are_tests_and_all_that_is_carried(tmp_path: Path) -> None:
    for name in ("out/a.bpf.o", "out/b.bpf.o", "out/c.o", "big/file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    read = project(tmp_path)
    assert read.all_tests == ("out/a.bpf.o", "out/b.bpf.o")
    assert read.is_test("out/a.bpf.o")
    assert not read.is_test("out/c.o")
    assert [str(path) for path in payload.project_files(payload.of_project(read))] == ["out/a.bpf.o", "out/b.bpf.o"]


def test_the_engines_own_objects_are_none_of_the_projects(tmp_path: Path) -> None:
    (tmp_path / "build" / "engine").mkdir(parents=True)
    for name in ("build/engine/probes.bpf.o", "build/x.bpf.o"):
        (tmp_path / name).write_bytes(b"")
    assert project(tmp_path, 'objects = ["build/**/*.o"]').object_files == ("build/x.bpf.o",)


def test_the_longest_name_that_fits_has_the_settings() -> None:
    every, one, path = (ObjectSettings(modules=(name,)) for name in ("every", "one", "path"))
    table = ObjectTable({"*.bpf.o": every, "x.bpf.o": one, "out/y.bpf.o": path})
    assert [table.of(name) for name in ("out/x.bpf.o", "out/y.bpf.o", "out/z.bpf.o", "out/z.o")] == [
        one,
        path,
        every,
        ObjectSettings(),
    ]


MANIFEST = manifest.load(HERE.images)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ('objects = ["out/*.bpf.o"]', ""),
        ('objects = ["out/*.bpf.o", "gone/*.o"]', "gone/*.o: no such file"),
        ('objects = ["out/*.bpf.o"]\n[object."b.bpf.o"]', 'object."b.bpf.o": no object is called so'),
        ('objects = ["out/*.bpf.o"]\n[object."a.bpf.o"]', ""),
        ('objects = ["out/*.bpf.o"]\n[[expect]]\ncells = "out/b.bpf.o::*"\noptional = true', "no object is called so"),
        ('objects = ["out/*.bpf.o"]\n[[expect]]\ncells = "*a.bpf.o::*"\noptional = true', ""),
        ('objects = ["out/*.bpf.o"]\n[[expect]]\ncells = "*::run::*"\noptional = true', "out/a.bpf.o has no such cell"),
        ('objects = ["out/*.bpf.o"]\n[[expect]]\ncells = "*"\none-of = ["object", "gone"]', "has no such cell"),
        ('objects = ["out/*.bpf.o"]\n[[expect]]\ncells = "*"\none-of = ["object"]', ""),
        ('[[expect]]\ncells = "*"\noptional = true\nkernels = ["0.1"]', "unknown kernel '0.1'"),
        (
            'commands = [{ run = "true", known-issue = "r", known-issue-kernels = ["0.1"] }]',
            "commands: true: unknown kernel '0.1'",
        ),
        ('[[expect]]\ncells = "*"\noptional = true\nwithout = "magic"', "unknown feature 'magic'"),
        ('[[expect]]\ncells = "*"\noptional = true\nkernels = ["6.1"]\nwithout = "tcx"', ""),
    ],
)
def test_what_is_about_nothing_is_refused_before_a_boot(tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.bpf.o").write_bytes(b"")
    read = project(tmp_path, text)
    if not line:
        plan_objects.check(read, MANIFEST)
        return
    with pytest.raises(ManifestError) as error:
        plan_objects.check(read, MANIFEST)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


names = st.text(max_size=6)
mapped = st.dictionaries(names, names, max_size=3)
settings = st.builds(
    ObjectSettings,
    st.lists(names, max_size=2).map(tuple),
    st.dictionaries(names, st.integers() | st.lists(st.integers(), max_size=3), max_size=3),
    st.dictionaries(names, st.integers() | st.just("cpus"), max_size=3),
    mapped,
    mapped,
    mapped,
    mapped,
    value_sizes=st.dictionaries(names, st.integers(1), max_size=3),
    device_bound=st.lists(names, max_size=2).map(tuple),
)
expectations = st.builds(
    Expected, names, st.lists(names, max_size=2).map(tuple), names, names, names, st.booleans(), known_issue=names
)


@given(
    st.builds(
        ObjectTable,
        st.dictionaries(names, settings, max_size=2),
        st.lists(expectations, max_size=3).map(tuple),
        st.none() | st.lists(names, max_size=3).map(tuple),
    )
)
def test_a_guest_reads_what_the_host_has_written(table: ObjectTable) -> None:
    assert ObjectTable.of_json(json.loads(json.dumps(asdict(table)))) == table


@pytest.mark.parametrize(
    ("expected", "holds"),
    [
        (Expected("x.o::p::*"), True),
        (Expected("x.o::p::load"), False),
        (Expected("x.o::p::*", kernels=("6.1",)), True),
        (Expected("x.o::p::*", kernels=("5.10",)), False),
        (Expected("x.o::p::*", without="tcx"), True),
        (Expected("x.o::p::*", without="fentry"), False),
        (Expected("x.o::*", one_of=("p", "q")), True),
        (Expected("x.o::*", one_of=("q", "r")), False),
    ],
)
def test_an_expectation_is_about_cells_kernels_and_features(expected: Expected, holds: bool) -> None:
    assert expected.holds("x.o::p::attach", "6.1", {"fentry"}) is holds


def test_an_expectation_without_a_cell_is_noticed() -> None:
    tests = ["out/x.o::p::load", "out/x.o::p::attach"]
    assert not objects.has_cells(Expected("out/x.o::q::*"), tests)
    assert objects.has_cells(Expected("out/x.o::p::*"), tests)
    assert not objects.has_cells(Expected("out/x.o::*", one_of=("p", "q")), tests)
    assert objects.has_cells(Expected("out/x.o::*", one_of=("p",)), tests)


@given(st.integers(1, 8), st.data())
def test_a_number_is_encoded_in_the_variables_bytes(size: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(-(1 << (8 * size - 1)), (1 << 8 * size) - 1))
    encoded_value = encoded(value, size)
    assert encoded_value is not None
    assert int.from_bytes(encoded_value, "little", signed=value < 0) == value
    assert encoded(1 << 8 * size, size) is None


def test_an_array_has_a_number_for_each_element() -> None:
    assert encoded((1, 0x203), 4) == b"\x01\x00\x03\x02"
    assert encoded((1, 2, 3), 4) is None
    assert encoded((), 4) is None
    assert encoded(True, 1) == b"\x01"


@pytest.mark.parametrize(
    ("section", "near"),
    [
        ("tc_ingress", "tc"),
        ("xdp-prog1", "xdp"),
        ("kprobes/x", "kprobe"),
        ("kprobe.multi_x", "kprobe.multi"),
        ("cgroup/conect4", "cgroup/connect4"),
        ("sockop", "sockops"),
        ("xdp/my_filter", "xdp"),
        ("classifier/ingress", "classifier"),
        ("socket/http", "socket"),
        ("cgroup_skb", "cgroup/skb"),
        ("elsewhere", ""),
    ],
)
def test_the_nearest_section_is_named(section: str, near: str) -> None:
    assert sections.near(section) == near


def test_items_are_named_by_kernel_and_repetition() -> None:
    assert list(objects.identities("load", ("6.1", "5.10"), 1)) == ["load[6.1]", "load[5.10]"]
    assert list(objects.identities("load", ("6.1",), 2)) == ["load[6.1-#1]", "load[6.1-#2]"]


def test_both_tables_of_sections_agree() -> None:
    """One says what a program is, the other only which names there are; libbpf has one."""
    assert set(sections._DEFINED) == {
        f"{name}+" if with_target else name for name, (_, _, with_target) in section_names._ROWS.items()
    }


@pytest.mark.parametrize(
    ("section", "known"),
    [
        ("xdp", True),
        ("xdp/devmap", True),
        ("kprobe.session/f", True),
        ("tp/a/b", True),
        ("cgroup/connect_unix", True),
        # libbpf 1.0 matches these names as a whole: sec_def_matches()
        ("xdp/my_filter", False),
        ("classifier/ingress", False),
        ("socket/http", False),
        ("cgroup_skb", False),
        ("kprobe__f", False),
    ],
)
def test_only_some_sections_take_a_target(section: str, known: bool) -> None:
    assert sections.known(section) is known


@pytest.mark.parametrize(
    ("patterns", "sources", "compiled"),
    [((), "bpf", False), (("build/*.bpf.o",), None, False), (("build/*.bpf.o",), "bpf", True)],
)
def test_sources_are_compiled_first_where_objects_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patterns: tuple[str, ...], sources: str | None, compiled: bool
) -> None:
    """The patterns are of what is made of them; without one, each test compiles what it loads."""
    built: list[Project] = []
    monkeypatch.setattr("kernel_matrix.objects.build.build_all", built.append)
    project = below(tmp_path, objects=patterns, sources=sources and tmp_path / sources)
    plan_objects.make_first(project, lambda _: None)
    assert built == [project] * compiled
