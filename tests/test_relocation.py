"""CO-RE relocations are resolved as libbpf does: the same type, the same place, the same value.

libbpf's own answers are those of ``bpftool gen min_core_btf``, which resolves without loading, and needs no privilege.
"""

from __future__ import annotations

import functools
import itertools
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kernel_matrix.objects import object_file
from kernel_matrix.objects.object_file import ObjectFile
from kernel_matrix.objects.types.btf_ext import RelocationKind as K
from kernel_matrix.objects.types.relocation import RefusedError, Resolution, Resolver
from kernel_matrix.shared.bpf.btf import Btf
from tests import core_source

#: what libbpf 1.1 writes into the instructions of `core_source.LOCAL` (its log of bpf_object__load with the kernel's
#: types as btf_custom_path); None: it makes the instruction invalid. In the order of the source, without the two ids.
FIRST = (
    120, 92, 20, 4, 1, 110, 1, 0, 0, 1, 1, 112, 4, 52, 61, 112, 4, 55, 55, 152, 8, 14, 24, 76, 204, 168, 0, 164,
    0, 4, 35, 55, 136, 1, 0, 184, 0, 1, 1, 1, 8, 1, 1, 1, 1, -4, 0,
)  # fmt: skip
SECOND = (
    16, None, None, None, 1, 76, 0, None, 1, 1, 0, 80, 8, 0, 0, 88, 4, 32, 32, 96, 8, 0, 0, 84, None, None, 1, 108,
    0, 8, 25, 55, None, 1, 0, 144, 0, 1, 0, 0, 0, 1, 1, 1, 1, 40, 1,
)  # fmt: skip
_LINE = re.compile(r"libbpf: prog '\w+': relo #(\d+): (non-matching|matching) candidate #\d+ <(\w+)> \[(\d+)\] (.*)")
_OFFSET = re.compile(r"@ offset (\d+)(?:\.(\d+))?\)")


@functools.cache
def folder() -> Path:
    """A folder with the compiled sources, for all tests of this process."""
    place = Path(tempfile.mkdtemp(prefix="core-"))
    for name, source in (("local", core_source.LOCAL), ("first", core_source.FIRST), ("second", core_source.SECOND)):
        core_source.compiled(place, name, source)
    return place


def raw_btf(path: Path) -> bytes:
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".BTF")
        assert section is not None
        data: bytes = section.data()
        return data


def read(path: Path) -> ObjectFile:
    return object_file.read(path.read_bytes(), path.name)


def resolved(local: ObjectFile, target: Btf) -> list[Resolution | RefusedError]:
    assert local.btf is not None
    resolver, answers = Resolver(local.btf, target), list[Resolution | RefusedError]()
    for record in local.extension.relocations:
        try:
            answers.append(resolver.resolve(record))
        except RefusedError as error:
            answers.append(error)
    return answers


def of_libbpf(local: Path, target: Path) -> dict[int, list[tuple[int, int]]]:
    """Return libbpf's matching candidates of each relocation: the type's number, and the place in bits (-1: none)."""
    btf = target.with_suffix(".btf")
    btf.write_bytes(raw_btf(target))
    command = ["bpftool", "-d", "gen", "min_core_btf", str(btf), str(target.with_suffix(".min")), str(local)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    matching: dict[int, list[tuple[int, int]]] = {}
    for number, how, _, root, rest in _LINE.findall(done.stdout + done.stderr):
        matches = matching.setdefault(int(number), [])
        if how == "matching":
            place = _OFFSET.search(rest)
            matches.append((int(root), int(place[1]) * 8 + int(place[2] or 0) if place else -1))
    return matching


def compare(local: Path, target: Path) -> int:
    """Hold the resolver against libbpf for each relocation of an object with one section; return how many."""
    tested, types = read(local), Btf(raw_btf(target))
    theirs = of_libbpf(local, target)
    assert theirs, "libbpf has resolved nothing"
    for number, (record, mine) in enumerate(zip(tested.extension.relocations, resolved(tested, types), strict=True)):
        if record.kind is K.TYPE_ID_LOCAL:
            continue
        assert isinstance(mine, Resolution), (number, mine)
        roots = {root for root, _ in theirs.get(number, [])}
        assert bool(mine.target) == bool(roots), (number, record, mine)
        if record.kind is K.TYPE_ID_TARGET:
            assert {mine.value} == roots
        if record.kind.of_field and roots:
            assert {mine.bit_offset} == {place for _, place in theirs[number]}, (number, record, mine)
    return len(theirs)


@pytest.mark.parametrize(("kernel", "values"), [("first", FIRST), ("second", SECOND)])
def test_every_kind_has_the_value_that_libbpf_writes(kernel: str, values: tuple[int | None, ...]) -> None:
    """Flavors, anonymous members, arrays, bitfields, types of functions, enums: all that a relocation can be about."""
    local = read(folder() / "local.o")
    answers = resolved(local, Btf(raw_btf(folder() / f"{kernel}.o")))
    kinds = [record.kind for record in local.extension.relocations]
    mine = [
        answer.value if isinstance(answer, Resolution) else answer
        for kind, answer in zip(kinds, answers, strict=True)
        if kind not in {K.TYPE_ID_LOCAL, K.TYPE_ID_TARGET}
    ]
    assert mine == list(values)
    # the compiler of the test machines makes none of the last kind
    assert {*kinds} == {*K} - {K.TYPE_MATCHES}


@pytest.mark.parametrize("kernel", ["first", "second"])
def test_every_kind_has_the_target_that_libbpf_finds(kernel: str) -> None:
    assert compare(folder() / "local.o", folder() / f"{kernel}.o") > 30


@pytest.mark.parametrize("kernel", ["first", "second", "local"])
def test_matching_types_are_those_of_libbpf(kernel: str, tmp_path: Path) -> None:
    """The relocations that ask whether a type exists, made to ask whether it matches."""
    source = folder() / "local.o"
    tested, data = read(source), source.read_bytes()
    asked = [record for record in tested.extension.relocations if record.kind is K.TYPE_EXISTS]
    for record in asked:
        before = re.compile(re.escape(struct.pack("<II", record.offset, record.type)) + rb"(....)\x08\0\0\0", re.DOTALL)
        assert len(before.findall(data)) == 1
        data = before.sub(lambda match: match[0][:12] + struct.pack("<I", K.TYPE_MATCHES), data)
    changed = tmp_path / "matches.o"
    changed.write_bytes(data)
    assert [one.kind for one in read(changed).extension.relocations].count(K.TYPE_MATCHES) == len(asked) == 8
    compare(changed, folder() / f"{kernel}.o")
    answers = resolved(read(changed), Btf(raw_btf(folder() / f"{kernel}.o")))
    matched = [
        isinstance(answer, Resolution) and answer.value
        for record, answer in zip(tested.extension.relocations, answers, strict=True)
        if record.kind is K.TYPE_EXISTS
    ]
    # an object matches itself, also where it only declares a struct. In the order of the source: the last but one is an
    # enum of another size on the first kernel, the last a struct with one more member there, and one less on the second
    expected = {
        "first": [0, 0, 0, 1, 1, 1, 0, 1],
        "second": [0, 0, 0, 0, 0, 1, 1, 0],
        "local": [1, 1, 1, 1, 1, 1, 1, 1],
    }
    assert matched == expected[kernel]


# -- random structs

_SCALARS = ("char", "short", "int", "long", "unsigned int", "unsigned long long", "void *", "enum e", "struct in")


@st.composite
def fields(draw: st.DrawFn, names: tuple[str, ...]) -> str:
    """Return the members of a struct: scalars, arrays, bitfields, and anonymous structs and unions of them."""
    text = ""
    for name in names:
        shape = draw(st.sampled_from(["scalar", "scalar", "array", "bits", "struct", "union"]))
        kind = draw(st.sampled_from(_SCALARS))
        if shape == "array":
            text += f"{kind} {name}[{draw(st.integers(1, 4))}]; "
        elif shape == "bits":
            text += f"int {name} : {draw(st.integers(1, 31))}; "
        elif shape == "scalar":
            text += f"{kind} {name}; "
        else:
            text += f"{shape} {{ char in_{name}; {kind} {name}; }}; "
    return text


@st.composite
def layouts(draw: st.DrawFn) -> tuple[str, str, tuple[str, ...]]:
    """Return two structs with the names that they share in other orders and shapes, and the first one's names."""
    names = tuple(f"f{number}" for number in range(draw(st.integers(2, 6))))
    theirs = draw(st.permutations([*names, "other"]))
    return draw(fields(names)), draw(fields(tuple(theirs[: draw(st.integers(1, len(theirs)))]))), names


_HEAD = "enum e { A, B }; struct in { int i; long j[2]; }; "


def questions(mine: str, names: tuple[str, ...]) -> Iterator[str]:
    """Yield what the program asks of each field; the compiler takes no place of a bitfield."""
    for name, kind in itertools.product(names, (0, 1, 2)):
        yield f"sink = __builtin_preserve_field_info(o->{name}, {kind});"
    for name in names:
        if re.search(rf"struct in {name}\[", mine):
            yield f"sink = __builtin_preserve_field_info(o->{name}[0].j[1], 0);"


# each example takes two runs of the compiler: a failing one is shown as it is, not made smaller for minutes
@settings(max_examples=12, phases=[Phase.generate])
@given(layouts())
def test_a_random_struct_is_found_where_libbpf_finds_it(layout: tuple[str, str, tuple[str, ...]]) -> None:
    mine, theirs, names = layout
    with tempfile.TemporaryDirectory() as place:
        body = " ".join(questions(mine, names))
        # a bitfield behind a char makes clang 14 end with "requiring too big alignment"
        apart = re.sub(r"int \w+ :", r"int : 0; \g<0>", mine)
        struct_of_mine = f"struct s {{ {apart} }} __attribute__((preserve_access_index)); volatile long sink;"
        program = f'__attribute__((section("kprobe"), used)) int p(struct s *o) {{ {body} return 0; }}'
        source = f"{_HEAD}{struct_of_mine} {program}"
        local = core_source.compiled(Path(place), "local", source)
        target = core_source.compiled(
            Path(place), "target", f"{_HEAD}struct s {{ {theirs} }} s; struct in i; enum e e;"
        )
        assert compare(local, target) == len(read(local).extension.relocations)
