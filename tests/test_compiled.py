"""What a loader has compiled in a guest: how it is named, carried, kept, and when it is not taken."""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import random
import tarfile
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import loaders
from kernel_matrix.guest.bpf.loader_support import bcc_compiler
from kernel_matrix.guest.bpf.loaders import bcc
from kernel_matrix.guest.bpf.steps import MapSpec
from kernel_matrix.guest.pytest import plugin
from kernel_matrix.guest.system.upkeep import alive
from kernel_matrix.plan.bpf import compiling
from kernel_matrix.relay import payload
from kernel_matrix.shared.bpf import compiled
from kernel_matrix.shared.bpf.compiled import Compiled
from kernel_matrix.shared.channel.protocol import COMPILED
from kernel_matrix.shared.project import ROOT_VARIABLE
from tests.projects import below

COMPILER = "0123456789abcdef"


def instruction(opcode: int, registers: int = 0, immediate: int = 0) -> bytes:
    return bytes([opcode, registers, 0, 0]) + immediate.to_bytes(4, "little", signed=True)


#: loads a map's address, a constant whose second half looks like such a load, another map's address; ends
WIDE, MAP, PLAIN = 0x18, 0x11, 0x01
CODE = b"".join(
    [
        *(instruction(WIDE, MAP, 0), instruction(0)),
        *(instruction(WIDE, PLAIN, -1), instruction(WIDE, MAP, 77)),
        *(instruction(WIDE, MAP, 1), instruction(0)),
        instruction(0x95),
    ]
)
VALUE = Compiled(
    compiler=COMPILER,
    key="ab" * 16,
    name="a.bpf.o",
    loader="bcc",
    seconds=150.5,
    license="GPL",
    version=0x601C0,
    maps={"uids": (4, 8), "events": (0, 0)},
    programs={"trace": CODE, "other": instruction(0x95)},
)


def test_a_value_is_read_back_as_it_was_written() -> None:
    assert compiled.decode(compiled.encode(VALUE)) == VALUE
    assert compiled.decode(compiled.of_text(compiled.as_text(VALUE))) == VALUE
    assert list(compiled.decode(compiled.encode(VALUE)).maps) == ["uids", "events"]


def test_a_damaged_value_is_refused_whatever_is_damaged() -> None:
    """Each bit of the entry, each length, and something behind it."""
    data = compiled.encode(VALUE)
    damaged = [data[:end] for end in range(len(data))] + [data + b"\0"]
    damaged += [
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in range(8)
    ]
    for entry in damaged:
        with pytest.raises(ValueError, match="damaged"):
            compiled.decode(entry)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"key": "../../etc/passwd"}, "not the name of an entry"),
        ({"key": f"../{'ab' * 16}"}, "not the name of an entry"),
        ({"compiler": ".."}, "not the name of an entry"),
        ({"compiler": ""}, "not the name of an entry"),
        ({"programs": {"trace": CODE[:-1]}}, "are no instructions"),
        ({"programs": {"trace": b""}}, "are no instructions"),
        ({"programs": {"trace": instruction(WIDE, MAP, 2) + instruction(0)}}, "no map 2"),
        ({"programs": {"trace": instruction(WIDE, MAP, -1) + instruction(0)}}, "no map -1"),
    ],
)
def test_what_no_compiler_writes_is_refused(change: dict[str, object], why: str) -> None:
    """Its digest is right: a guest has written it so."""
    with pytest.raises(ValueError, match=why):
        compiled.decode(compiled.encode(replace(VALUE, **change)))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["[]", "{}", "x", '{"programs": {}, "maps": {}}', '{"programs": 1}'])
def test_another_version_s_value_is_refused(text: str) -> None:
    data = zlib.compress(text.encode())
    with pytest.raises(ValueError, match=r"not of this version|Expecting value"):
        compiled.decode(hashlib.sha256(data).digest() + data)


def test_a_text_that_is_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"."):
        compiled.of_text("no base64!")


def test_only_the_maps_of_instructions_get_other_numbers() -> None:
    """The second half of a wide instruction is data, whatever it looks like."""
    loaded = compiled.with_numbers(CODE, {0: 10, 1: 1 << 20})
    assert loaded == b"".join(
        [
            *(instruction(WIDE, MAP, 10), instruction(0)),
            *(instruction(WIDE, PLAIN, -1), instruction(WIDE, MAP, 77)),
            *(instruction(WIDE, MAP, 1 << 20), instruction(0)),
            instruction(0x95),
        ]
    )
    assert compiled.with_numbers(loaded, {10: 0, 1 << 20: 1}) == CODE


def test_a_map_that_nobody_knows_is_no_number() -> None:
    with pytest.raises(KeyError):
        compiled.with_numbers(CODE, {0: 10})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with an engine, sources, and objects."""
    for name, text in {
        "engine/guest/bpf/loader_support/bcc_compiler.py": "compiler",
        "engine/guest/bpf/loaders/bcc_headers/bpf/bpf_helpers.h": "helpers",
        "engine/guest/bpf/loaders/bcc.py": "loader",
        "bpf/a.bpf.c": '#include "a.h"\n # include  <shared.h>\n#ifdef NO\n#include "branch.h"\n#endif\n'
        "#include <linux/x.h>\n",
        "bpf/a.h": '#pragma once\n#include "deep/b.h"\n',
        "bpf/deep/b.h": '#include "../round.h"\n#include "top.h"\n',
        "bpf/top.h": "beside the source, not beside its includer",
        "bpf/round.h": '#include "deep/b.h"\n',
        "bpf/shared.h": "shared",
        "bpf/branch.h": "branch",
        "bpf/c.bpf.c": '#include "c.h"\n',
        "bpf/c.h": "c",
        "bpf/macro.bpf.c": '#define NAME "c.h"\n#include NAME\n',
        "build/a.bpf.o": "object",
        "build/c.bpf.o": "another",
        "build/macro.bpf.o": "third",
        "build/engine/probes.bpf.o": "of no source here",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def key(files: Path, name: str = "a", compiler: str = COMPILER) -> str:
    return compiled.key_of(compiler, files / "engine", files / f"bpf/{name}.bpf.c", files / f"build/{name}.bpf.o")


@pytest.mark.parametrize(
    "changed",
    [
        "bpf/a.bpf.c",
        "bpf/a.h",
        "bpf/deep/b.h",
        "bpf/round.h",
        "bpf/top.h",
        "bpf/shared.h",
        "bpf/branch.h",
        "build/a.bpf.o",
        "engine/guest/bpf/loader_support/bcc_compiler.py",
        "engine/guest/bpf/loaders/bcc_headers/bpf/bpf_helpers.h",
    ],
)
def test_a_change_of_what_is_compiled_is_another_name(changed: str, files: Path) -> None:
    before = key(files)
    (files / changed).write_text((files / changed).read_text() + "/* x */")
    assert key(files) != before


@pytest.mark.parametrize("changed", ["bpf/c.bpf.c", "bpf/c.h", "build/c.bpf.o", "engine/guest/bpf/loaders/bcc.py"])
def test_a_change_of_something_else_is_the_same_name(changed: str, files: Path) -> None:
    before = key(files)
    (files / changed).write_text("changed")
    assert key(files) == before


def test_another_compiler_is_another_name(files: Path) -> None:
    assert key(files) != key(files, compiler=COMPILER[::-1])


def test_a_header_that_is_added_or_renamed_is_another_name(files: Path) -> None:
    before = key(files)
    new = files / "engine/guest/bpf/loaders/bcc_headers/bpf/new.h"
    new.touch()
    added = key(files)
    new.rename(new.with_name("other.h"))
    assert len({before, added, key(files)}) == 3


def test_a_header_that_shadows_one_of_the_kernel_s_counts(files: Path) -> None:
    before = key(files)
    (files / "bpf/linux").mkdir()
    (files / "bpf/linux/x.h").touch()
    assert key(files) != before


def test_where_a_macro_names_the_header_every_header_counts(files: Path) -> None:
    before = key(files, "macro")
    (files / "bpf/branch.h").write_text("changed")
    assert key(files, "macro") != before


def test_the_name_does_not_depend_on_where_the_project_is(
    files: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The guest and the host compute it, each with its own paths."""
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x"
    before = key(files)
    files.rename(elsewhere)
    assert key(elsewhere) == before


def entries(files: Path) -> dict[str, bytes]:
    folder = files / "cache" / COMPILER
    rows = compiled.entries(folder, files / "engine", files / "build", files / "bpf")
    return {name: data for _, name, data in rows if data is not None}


def keep(files: Path, name: str = "a") -> bytes:
    """Keep a value of a source, as the host does with a guest's; return the entry."""
    data = compiled.encode(replace(VALUE, key=key(files, name)))
    compiled.keep(files / "cache", data)
    return data


def test_what_is_kept_is_for_the_same_content_only(files: Path) -> None:
    assert entries(files) == {}
    data = keep(files)
    assert entries(files) == {key(files): data}
    (files / "bpf/deep/b.h").write_text("changed")
    assert entries(files) == {}
    again = keep(files)
    assert entries(files) == {key(files): again}


def test_a_damaged_entry_is_none_until_it_is_kept_anew(files: Path) -> None:
    data = keep(files)
    path = files / "cache" / COMPILER / key(files)
    for damaged in (b"", data[:-1], data[:40] + b"\xff" + data[41:], keep(files, "c")):
        path.write_bytes(damaged)
        assert key(files) not in entries(files)
    keep(files)
    assert entries(files)[key(files)] == data


def test_an_entry_of_another_compiler_is_not_taken(files: Path) -> None:
    """Its folder was renamed, so that its name is right."""
    keep(files)
    (files / "cache" / COMPILER).rename(files / "cache" / COMPILER[::-1])
    other = files / "cache" / COMPILER[::-1]
    rows = compiled.entries(other, files / "engine", files / "build", files / "bpf")
    assert not any(data for _, _, data in rows)


def test_a_guest_gets_what_is_kept_for_its_content(files: Path) -> None:
    project = below(files, sources=files / "bpf", carry=("bpf",))
    carried = payload.of_project(project, compiled_by=files / "cache" / COMPILER)
    assert carried.compiler == COMPILER
    own = compiled.key_of(COMPILER, payload._PACKAGE, files / "bpf/a.bpf.c", files / "build/a.bpf.o")
    data = compiled.encode(replace(VALUE, key=own))
    compiled.keep(files / "cache", data)

    def rest() -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(payload.pack(carried).rest)) as tar:
            return {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]

    lacking = payload.lacking(carried)
    assert "a" not in lacking
    assert lacking
    assert rest()[f".engine/compiled/{own}"] == data
    (files / "cache" / COMPILER / own).write_bytes(data[:-1])
    assert not any("compiled" in name for name in rest())
    assert payload.lacking(carried) == {"a", *lacking}


def test_nothing_is_kept_for_a_guest_in_which_nothing_compiles(files: Path) -> None:
    carried = payload.of_project(below(files, sources=files / "bpf", carry=("bpf",)))
    assert (carried.kept, carried.compiler) == (None, "")
    assert payload.lacking(carried) == frozenset()


@pytest.fixture
def guest(files: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Compiled]:
    """Return a function that asks the loader for a source, in a guest that has these files; compiling is counted."""
    monkeypatch.setenv(ROOT_VARIABLE, str(files))
    monkeypatch.setenv(compiled.COMPILER_VARIABLE, COMPILER)
    monkeypatch.setattr(bcc, "_ENGINE", files / "engine")
    monkeypatch.setattr(loaders, "new", [])

    def made(source: Path, programs: list[str], maps: object, *, name: str, compiler: str, key: str) -> Compiled:
        assert (source, programs, maps) == (files / "bpf/a.bpf.c", ["trace"], {})
        return replace(VALUE, name=name, compiler=compiler, key=key)

    monkeypatch.setattr(bcc_compiler, "compiled", made)
    described = bcc._Described(0, {"trace": ("kprobe", "kprobe/x")}, {})
    return lambda: bcc._compiled(files / "build/a.bpf.o", described)


def test_a_guest_compiles_what_it_did_not_get(files: Path, guest: Callable[[], Compiled]) -> None:
    """And reports it once; what it got is the same value, and is not reported."""
    made = guest()
    assert made == replace(VALUE, name="a.bpf.o", key=key(files))
    assert loaders.new == [made]
    place = files / compiled.FOLDER / key(files)
    place.parent.mkdir(parents=True)
    place.write_bytes(compiled.encode(replace(made, seconds=1.0)))
    assert guest() == replace(made, seconds=1.0)
    assert loaders.new == [made]


@pytest.mark.parametrize("damage", ["cut", "bit", "other", "content"])
def test_a_guest_never_loads_a_damaged_entry(damage: str, files: Path, guest: Callable[[], Compiled]) -> None:
    made = guest()
    data = compiled.encode(replace(made, seconds=1.0))
    place = files / compiled.FOLDER / key(files)
    place.parent.mkdir(parents=True)
    match damage:
        case "cut":
            data = data[: len(data) // 2]
        case "bit":
            data = data[:-5] + bytes([data[-5] ^ 4]) + data[-4:]
        case "other":
            data = compiled.encode(replace(made, seconds=1.0, key=key(files, "c")))
        case "content":
            (files / "bpf/a.h").write_text("changed")
    place.write_bytes(data)
    assert guest().seconds == made.seconds
    assert len(loaders.new) == 2


@pytest.mark.parametrize("sizes", [(4, 16), (8, 8)])
def test_maps_of_other_sizes_than_the_object_s_are_an_error(
    sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers take layouts from the object's BTF: they would read another struct."""
    path = Path(f"a{sizes}.bpf.o")
    maps = {"uids": MapSpec("hash", *sizes, 1), "events": MapSpec("ringbuf", 0, 0, 4096)}
    monkeypatch.setattr(bcc, "_compiled", lambda *_: VALUE)
    monkeypatch.setattr(bcc._Described, "of", lambda _: bcc._Described(0, {}, maps))
    with pytest.raises(TypeError, match=r"with bcc, key and value of uids have \(4, 8\) bytes"):
        bcc._module(path)


def test_a_report_carries_what_was_compiled_apart_from_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "new", [VALUE, replace(VALUE, name="b.bpf.o", seconds=10.0)])
    report = pytest.TestReport("n", ("f", 0, "n"), {}, "passed", None, "setup", duration=162.0)
    plugin._report_compiled(report)
    assert [name for name, _ in report.user_properties] == [COMPILED, COMPILED]
    assert [compiled.decode(compiled.of_text(str(text))).name for _, text in report.user_properties] == [
        "a.bpf.o",
        "b.bpf.o",
    ]
    assert report.duration == pytest.approx(1.5)
    assert loaders.new == []
    plugin._report_compiled(report)
    assert len(report.user_properties) == 2


def test_the_run_keeps_what_a_report_carries_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))
    line = compiling.keep(compiled.as_text(VALUE))
    assert line == "bcc compiled a.bpf.o in 150.5 s, and later guests get it"
    place = tmp_path / "compiled" / COMPILER
    assert compiled.kept(place, VALUE.key) == compiled.encode(VALUE)
    # `prune` deletes only what is marked
    assert (place / ".kernel-matrix").is_file()


def test_what_arrives_damaged_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))
    text = compiled.as_text(VALUE)
    for damaged in ("", text[:-8], f"{text[:100]}{'A' if text[100] != 'A' else 'B'}{text[101:]}", json.dumps({})):
        assert compiling.keep(damaged).startswith("what a loader compiled is not kept: ")
    assert not (tmp_path / "compiled").exists()


def test_a_guest_that_compiles_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread sends heartbeats while a C function runs, which holds no lock of Python's."""
    monkeypatch.setattr(alive, "BEAT", 0.001)
    came = threading.Event()
    beats: list[bytes] = []
    monkeypatch.setattr(alive, "_beats", [])

    def beat(data: bytes) -> None:
        beats.append(data)
        came.set()

    alive.beat_through(beat)
    usleep = ctypes.CDLL(None).usleep
    began = time.monotonic()
    with alive.working(60):
        while not came.is_set():
            usleep(random.randint(1, 1000))
    assert set(beats) == {b""}
    # it ends with the block, not at its limit
    assert time.monotonic() - began < 30
    count = len(beats)
    usleep(5000)
    assert len(beats) == count


def test_a_compiler_that_hangs_is_silent_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "BEAT", 0.0)
    beats: list[bytes] = []
    monkeypatch.setattr(alive, "_beats", [beats.append])
    alive._live(threading.Event(), until=0.0)
    assert beats == []
