"""A result set is what its published schema says, and is read back as it was."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.results import document
from kernel_matrix.results.changes import Change, Kind
from kernel_matrix.results.document import VERSION, Column, Document
from kernel_matrix.results.evidence import Digest, ObjectEvidence, ProgramSource
from kernel_matrix.shared import wire
from kernel_matrix.shared.bpf.costs import Cost
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.shared.outcomes.cells import Cell, Outcome

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "results.schema.json"

texts = st.text(st.characters(codec="utf-8"), max_size=20)
seconds = st.floats(0, 1e6)
costs = st.builds(Cost, *[st.integers(0, 1 << 40)] * 6, seconds)
sha256s = st.text("0123456789abcdef", min_size=64, max_size=64)
digests = st.lists(st.builds(Digest, texts, sha256s), max_size=2).map(tuple)
columns = st.builds(
    Column,
    texts,
    texts,
    texts,
    texts,
    st.dictionaries(texts, costs, max_size=2),
    st.lists(texts, max_size=2).map(tuple),
    digests,
)
pairs = st.lists(st.tuples(texts, texts), max_size=2).map(tuple)
cells = st.builds(Cell, texts, texts, st.sampled_from(Outcome), texts, seconds, texts, texts, texts, texts, pairs)
changes = st.builds(Change, st.sampled_from(Kind), texts, texts, texts, texts, texts, st.booleans())


def several(of: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(of, max_size=3).map(tuple)


lines = st.tuples(st.integers(0, 99), st.integers(0, 9), st.integers(1, 99))
objects = st.builds(
    ObjectEvidence,
    texts,
    sha256s,
    several(texts),
    several(texts),
    several(st.builds(ProgramSource, texts, several(lines))),
)
documents = st.builds(
    Document,
    version=st.just(VERSION),
    started=texts,
    seconds=seconds,
    exit_status=st.integers(0, 4),
    accelerator=texts,
    guests=st.integers(1, 9),
    arguments=several(texts),
    whole=st.booleans(),
    shard=texts,
    notes=several(texts),
    columns=several(columns),
    cells=several(cells),
    changes=several(changes),
    # a content is in it once
    objects=st.lists(objects, max_size=3, unique_by=lambda one: (one.name, one.sha256)).map(tuple),
    configuration=digests,
)


def test_the_published_schema_is_that_of_the_code() -> None:
    """Made by ``python -m kernel_matrix schema > docs/results.schema.json``."""
    assert SCHEMA.read_text() == document.schema()


@given(documents)
def test_a_result_set_is_valid_and_read_back(value: Document) -> None:
    data = wire.encode(value)
    jsonschema.validate(json.loads(data), json.loads(SCHEMA.read_text()))
    assert wire.decode(data, Document) == value


@pytest.mark.parametrize(
    ("content", "line"),
    [(None, "No such file"), ("{}", "not a result set"), ('{"version": "1"}', "not a result set")],
)
def test_what_is_no_result_set_is_one_line(tmp_path: Path, content: str | None, line: str) -> None:
    if content is not None:
        (tmp_path / document.NAME).write_text(content)
    with pytest.raises(HarnessError, match=line) as error:
        document.read(tmp_path)
    assert "\n" not in str(error.value)


def test_another_version_is_refused(tmp_path: Path) -> None:
    value = Document(VERSION + 1, "", 0, 0, "", 1, (), True, "", (), (), (), ())
    wire.write(tmp_path / document.NAME, value)
    with pytest.raises(HarnessError, match=f"version {VERSION + 1} of result sets"):
        document.read(tmp_path)


def test_costs_that_are_none_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "costs").mkdir()
    (tmp_path / "costs" / "6.1.json").write_text('{"p": {"instructions": "many"}}')
    with pytest.raises(HarnessError, match=r"6\.1\.json: no costs"):
        document.read_costs(tmp_path)
