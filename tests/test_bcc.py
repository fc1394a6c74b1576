"""What the loader bcc writes and reads, without bcc."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.loader_support import bcc_compiler
from kernel_matrix.guest.bpf.loaders import bcc
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import MapSpec
from kernel_matrix.shared.project import ROOT_VARIABLE

MAPS = {"events": MapSpec("ringbuf", 0, 0, 8192), "uids": MapSpec("hash", 4, 8, 1024)}


def test_the_main_file_has_a_map_and_a_program_for_each() -> None:
    text = bcc_compiler.main_file(Path("/s/a.bpf.c"), ["trace"], MAPS)
    assert text.splitlines() == [
        "#define trace trace__source",
        "#define events events__source",
        "#define uids uids__source",
        "#define MAP_NUMBER(map) _Generic(*(map), typeof(events__source): -1, typeof(uids__source): -2)",
        '#include "/s/a.bpf.c"',
        "#undef trace",
        "#undef events",
        "#undef uids",
        "BPF_RINGBUF_OUTPUT(events, 2);",
        'BPF_TABLE("hash", typeof(*uids__source.key), typeof(*uids__source.value), uids, 1024);',
        "int trace(void *ctx) { return trace__source(ctx); }",
    ]


def test_an_object_has_its_source_beside_the_build_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    with pytest.raises(StepError, match=r"bcc compiles C, and there is no fixtures/a\.bpf\.c"):
        bcc.source_of(tmp_path / "build/fixtures/a.bpf.o")
    source = tmp_path / "bpf/fixtures/a.bpf.c"
    source.parent.mkdir(parents=True)
    source.touch()
    assert bcc.source_of(tmp_path / "build/fixtures/a.bpf.o") == source
    with pytest.raises(StepError, match="bcc compiles sources of the project only"):
        bcc.source_of(tmp_path / "x.bpf.o")


@pytest.mark.parametrize(
    ("messages", "stage", "number", "what"),
    [
        ("could not open bpf map: uids, error: Operation not permitted\n", "map_create", errno.EPERM, "uids"),
        ("x\ncould not open bpf map: e, error: Cannot allocate memory\n", "map_create", errno.ENOMEM, "e"),
        ("/virtual/main.c:1:1: error: unknown type name 'x'\n1 error generated.\n", "open", 0, "a.bpf.o"),
    ],
)
def test_a_compilation_ends_at_a_stage(messages: str, stage: str, number: int, what: str) -> None:
    error = bcc_compiler.refused("a.bpf.o", messages)
    assert (error.stage, error.errno, error.what, error.log) == (stage, number, what, messages)


def test_the_stand_ins_cover_the_headers_that_sources_include() -> None:
    included = {
        line.partition("<bpf/")[2].rstrip(">")
        for path in Path(__file__).resolve().parent.parent.joinpath("bpf").glob("*.[ch]")
        for line in path.read_text().splitlines()
        if line.startswith("#include <bpf/")
    }
    assert included == {path.name for path in bcc_compiler.HEADERS.joinpath("bpf").iterdir()}


def test_what_cannot_be_compiled_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []

    def of(path: Path) -> None:
        tried.append(path)
        raise StepError(0, "open", path.name)

    monkeypatch.setattr(bcc._Described, "of", of)
    path = Path("/no/such/once.bpf.o")
    for _ in range(2):
        with pytest.raises(StepError, match=r"once\.bpf\.o"):
            bcc._module(path)
    assert tried == [path]
