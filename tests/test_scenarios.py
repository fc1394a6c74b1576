"""Scenarios of the table: read, refused in one line, carried to guests, collected as items of their object."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from kernel_matrix.config import project as configuration
from kernel_matrix.guest.pytest import attached
from kernel_matrix.guest.pytest.items import notation
from kernel_matrix.guest.system import frames
from kernel_matrix.objects import build
from kernel_matrix.plan import selection
from kernel_matrix.plan.bpf import scenarios
from kernel_matrix.shared.bpf.object_table import ObjectTable
from kernel_matrix.shared.bpf.scenario import Check, Scenario, Step
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project
from tests.foreign_cases import CASES

TABLE = """
objects = ["*.bpf.o"]

[[scenario]]
name = "datagrams"
object = "counter.bpf.o"
programs = ["count"]
xdp = "generic"
do = [{ send = "Ether()/IP()", times = 3, cpu = 1 }, { run = "true", status = 1 }, { connect = "[::1]:80", errno = "EPERM" }]
then = [
  { map = "protocols", key = 17, cpu = 0, value = { packets = 3 } },
  { map = "ports", keys = [53] },
  { variable = "frames", added = 3 },
]
"""  # noqa: E501


def project(folder: Path, text: str) -> Project:
    (folder / "kernel-matrix.toml").write_text(text)
    read = configuration.load(folder)
    assert read is not None
    return read


def test_a_scenario_is_read(tmp_path: Path) -> None:
    assert project(tmp_path, TABLE).object_table.scenarios == (
        Scenario(
            "datagrams",
            "counter.bpf.o",
            (
                Step("send", "Ether()/IP()", times=3, cpu=1),
                Step("run", "true", status=1),
                Step("connect", "[::1]:80", errno="EPERM"),
            ),
            (
                Check("map", "protocols", "value", {"packets": 3}, key=17, cpu=0),
                Check("map", "ports", "keys", [53]),
                Check("variable", "frames", "added", 3),
            ),
            ("count",),
            "generic",
        ),
    )


def test_a_guest_reads_the_scenarios_that_the_host_has_written(tmp_path: Path) -> None:
    table = project(tmp_path, TABLE).object_table
    assert ObjectTable.of_json(json.loads(json.dumps(asdict(table)))) == table


def test_scenarios_go_with_their_objects(tmp_path: Path) -> None:
    table = project(tmp_path, TABLE).object_table
    assert [own.name for own in table.scenarios_of("out/counter.bpf.o")] == ["datagrams"]
    assert table.scenarios_of("out/other.bpf.o") == ()
    assert table.about(["out/counter.bpf.o"]).scenarios == table.scenarios
    assert table.about(["out/other.bpf.o"]).scenarios == ()


def scenario(do: str = '{ run = "true" }', then: str = '{ variable = "frames", value = 1 }', more: str = "") -> str:
    head = f'objects = ["*.bpf.o"]\n[[scenario]]\nname = "s"\nobject = "counter.bpf.o"\n{more}\n'
    return f"{head}do = [{do}]\nthen = [{then}]\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (scenario(do=""), "scenario s: do: nothing is done"),
        (scenario(do='{ send = "Ether()" }', then=""), "scenario s: then: nothing must hold, so it cannot fail"),
        (scenario().replace('"s"', '"a b"'), "a name has letters, digits, and . _ - only"),
        (scenario() + scenario().partition("\n")[2], "two scenarios of an object have the same name"),
        (scenario(more='xdp = "offload"'), "Invalid enum value 'offload'"),
        (scenario(more="within = 0"), "> 0"),
        (scenario(more="then = 1").replace("then = [{", "x = [{"), "then"),
        (scenario(do='{ run = "true", send = "Ether()" }'), "do: one of connect, put, run, send"),
        (scenario(do="{ times = 2 }"), "do: one of connect, put, run, send"),
        (scenario(do='{ put = "rules", key = 1 }'), "do: put rules: put needs a key and a value"),
        (scenario(do='{ put = "rules", key = 1, value = 1, times = 2 }'), "put rules: times does not belong here"),
        (scenario(do='{ put = "rules", key = 1, value = 1 }', then=""), "nothing must hold, so it cannot fail"),
        (scenario(do='{ run = "true", cpu = 1 }'), "do: run true: cpu does not belong here"),
        (scenario(do='{ run = "true", times = 0 }'), ">= 1"),
        (scenario(do='{ run = "a \' b" }'), "run a ' b: No closing quotation"),
        (scenario(do='{ run = " " }'), "no command"),
        (scenario(do='{ connect = "localhost:80" }'), "an address is 127.0.0.1:PORT or [::1]:PORT"),
        (scenario(do='{ connect = "127.0.0.1:0" }'), "an address is 127.0.0.1:PORT"),
        (scenario(do='{ connect = "127.0.0.1:80", errno = "ENONE" }'), "no errno ENONE"),
        (scenario(then='{ map = "ports", key = 1 }'), "then: map ports: one of absent, added, keys, value"),
        (scenario(then='{ map = "ports", key = 1, value = 1, added = 1 }'), "one of absent, added, keys, value"),
        (scenario(then='{ map = "ports", value = 1 }'), "map ports: value needs a key"),
        (scenario(then='{ map = "ports", key = 1, keys = [1] }'), "map ports: keys takes no key"),
        (scenario(then='{ map = "ports", cpu = 1, keys = [1] }'), "map ports: keys takes no cpu"),
        (scenario(then='{ map = "ports", key = 1, absent = false }'), "absent"),
        (scenario(then='{ variable = "frames", value = 1, key = 1 }'), "variable frames: key does not belong here"),
        (scenario(then='{ events = "ring", value = 1 }'), "events ring: value does not belong here"),
        (scenario(then='{ events = "ring", struct = "x" }'), "events ring: one of count, values"),
        (scenario(then='{ events = "ring", size = 1 }'), "size"),
    ],
)
def test_a_scenario_that_says_nothing_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ManifestError, match=r"kernel-matrix\.toml") as error:
        project(tmp_path, text)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenarios")
    for name in ("counter", "execs"):
        build.compile_source(CASES / "scenarios" / f"{name}.bpf.c", folder / f"{name}.bpf.o", (), root=CASES)
    return folder


def of_events(check: str) -> str:
    return scenario(then=f'{{ events = "ring", {check} }}').replace("counter", "execs")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (scenario(), ""),
        (scenario().replace("counter", "gone"), "scenario s: object gone.bpf.o: no object is called so"),
        (scenario(more='programs = ["gone"]'), "counter.bpf.o has no program gone (it has: count)"),
        (scenario(then='{ map = "gone", key = 1, value = 1 }'), "no map gone (it has: ports, protocols)"),
        (scenario(then='{ map = "ports", key = 53, value = 1 }'), ""),
        (scenario(then='{ map = "ports", key = "$pid", value = "$ifindex" }'), ""),
        (scenario(then='{ map = "ports", key = "$uid", value = 1 }'), "unknown $uid (known: $pid, $ifindex)"),
        (scenario(then='{ map = "ports", key = 70000, value = 1 }'), "key of ports: 70000 does not fit"),
        (scenario(then='{ map = "ports", keys = [53, -1] }'), "key of ports: -1 does not fit"),
        (scenario(then='{ map = "ports", key = 53, cpu = 0, value = 1 }'), "map ports is not per-CPU"),
        (scenario(then='{ map = "protocols", key = 6, value = { frames = 1 } }'), "has no member frames"),
        (scenario(then='{ map = "protocols", key = 6, value = 1 }'), "1 is no struct traffic"),
        (scenario(then='{ variable = "gone", value = 1 }'), "no variable gone in .data and .bss (it has: frames)"),
        (scenario(then='{ events = "ports", count = 1 }'), "map ports is no ring buffer"),
        (of_events("count = 1"), ""),
        (of_events("values = [{ pid = 1 }]"), "events ring: name their struct"),
        (of_events('struct = "executed", where = { p = 1 }, count = 1'), "has no member p (it has: pid, uid, comm)"),
        (of_events('struct = "executed", values = [{ uid = "root" }]'), 'events ring.uid: "root" is no'),
        (of_events('struct = "gone", count = 1'), "no struct gone; this line of its source puts it there"),
        (scenario(do='{ put = "ports", key = 53, value = 1 }'), ""),
        (scenario(do='{ put = "ports", key = 53, value = -1 }'), "value of ports: -1 does not fit"),
        (scenario(do='{ put = "ports", key = "x", value = 1 }'), 'key of ports: "x" is no __be16'),
        (scenario(do='{ put = "protocols", key = 6, value = {} }'), "map protocols has a value for each processor"),
        (scenario(do='{ send = "Ether(type=70000)" }'), "frame Ether(type=70000): ValueError: While building"),
        (scenario(do='{ send = "Eter()" }'), "frame Eter(): NameError: name 'Eter' is not defined"),
        (scenario(do='{ send = "Ether(/IP()" }'), "frame Ether(/IP(): SyntaxError"),
        (scenario(do='{ send = "5" }'), "frame 5: a int, no frame"),
        (scenario(do='{ send = "Ether()/UDP(port=5)" }'), "frame Ether()/UDP(port=5): AttributeError: port"),
    ],
)  # fmt: skip
def test_what_an_object_cannot_do_is_one_line(compiled: Path, text: str, line: str) -> None:
    read = project(compiled, text)
    if not line:
        scenarios.check(read)
        return
    with pytest.raises(ManifestError, match=r"kernel-matrix\.toml: scenario s: ") as error:
        scenarios.check(read)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_the_table_of_the_cases_can_be_played(tmp_path: Path) -> None:
    """Of the objects that broken ones are made of: what is wrong with those only a run shows."""
    read = project(tmp_path, (CASES / "kernel-matrix.toml").read_text())
    assert {own.name for own in read.object_table.scenarios} == {
        "datagrams",
        "true",
        "connects",
        "a-rule-of-its-loader",
    }
    sources = sorted((CASES / "scenarios").glob("*.bpf.c"))
    for source in sources:
        target = tmp_path / "objects" / "scenarios" / source.name.replace(".c", ".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        build.compile_source(source, target, (), root=CASES)
    assert len(read.object_files) == len(sources) == 7
    scenarios.check(read)


def test_a_scenario_is_an_item_of_its_object(compiled: Path) -> None:
    """As the host collects before a boot; a node id of it is known."""
    read = project(compiled, scenario())
    assert selection.collects(read, "counter.bpf.o::scenario::s[6.1]", "6.1")


NEAR, FAR = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.mark.parametrize(
    ("notation", "head"),
    [
        ("Ether()/IP()", "0200000000010200000000020800"),
        ("Ether(dst=far, src=near)/IP()", "0200000000020200000000010800"),
        ("Ether(dst='ff:ff:ff:ff:ff:ff')/Dot1Q(vlan=5)/IPv6()", "ffffffffffff0200000000028100000586dd"),
        ("bytes(14) + b'x'", "00" * 14 + "78"),
    ],
)  # fmt: skip
def test_a_frame_goes_from_the_far_end_to_the_near_one(notation: str, head: str) -> None:
    assert frames.built(notation, NEAR, FAR).hex().startswith(head)


def test_layers_of_all_of_scapy_may_be_used() -> None:
    assert len(frames.built("Ether()/IP()/UDP()/VXLAN()/Ether()/IP()", NEAR, FAR)) == 14 + 20 + 8 + 8 + 14 + 20


def test_a_frame_has_no_builtins_but_those_named() -> None:
    assert notation.frame_error("open('/etc/passwd')") == (
        "frame open('/etc/passwd'): NameError: name 'open' is not defined"
    )


def test_an_object_is_named_by_its_path_or_its_name(tmp_path: Path) -> None:
    for name in ("build/a.bpf.o", "build/b.bpf.o", "old/b.bpf.o", ".engine/a.bpf.o"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert attached.found(tmp_path, "a.bpf.o") == tmp_path / "build" / "a.bpf.o"
    assert attached.found(tmp_path, "old/b.bpf.o") == tmp_path / "old" / "b.bpf.o"
    with pytest.raises(FileNotFoundError, match=r"b\.bpf\.o: .* \(of that name: build/b\.bpf\.o, old/b\.bpf\.o\)"):
        attached.found(tmp_path, "b.bpf.o")
    with pytest.raises(FileNotFoundError, match=r"c\.bpf\.o: .* \(of that name: none\)"):
        attached.found(tmp_path, "c.bpf.o")
