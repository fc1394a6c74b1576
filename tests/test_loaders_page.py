"""The tables of docs/loaders.md are the recorded observations: grouped by kernel, none left out."""

from __future__ import annotations

import loaders_page
import pytest

from kernel_matrix.results import baseline
from kernel_matrix.results.baseline import Expectation
from kernel_matrix.shared.outcomes.expect import loader_of
from tests.projects import HERE

KERNELS = ("5.10", "6.1", "6.12", "7.3")


def test_the_page_is_what_the_baseline_makes() -> None:
    assert loaders_page.PAGE.read_text() == loaders_page.made(), "run `nox -s docs`"


def test_every_table_has_a_column_for_each_recorded_loader() -> None:
    heads = [line for line in loaders_page.made().splitlines() if line.startswith("| | ")]
    assert len(heads) == 4
    observed = [test for entry in baseline.read(HERE.matrix_baselines).values() for test in entry.observed]
    recorded = {loader_of(test, HERE.all_loaders) for test in observed}
    assert recorded
    assert all(f"| {loader} " in line for line in heads for loader in recorded)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ("aaaa", "a"),
        ("abbb", "5.10: a; from 6.1: b"),
        ("aabb", "5.10 to 6.1: a; from 6.12: b"),
        ("abbc", "5.10: a; 6.1 to 6.12: b; 7.3: c"),
        ("abab", "5.10, 6.12: a; 6.1, 7.3: b"),
        ("-aaa", "from 6.1: a"),
        ("aa--", "5.10 to 6.1: a"),
        ("-a--", "6.1: a"),
        ("----", "-"),
    ],
)
def test_equal_kernels_are_one_group(values: str, text: str) -> None:
    """A value that only some kernels have names them, even where it is the only one."""
    by_name = {kernel: value for kernel, value in zip(KERNELS, values, strict=True) if value != "-"}
    assert loaders_page.by_kernel(by_name, KERNELS) == text


def expectation(**observed: dict[str, str]) -> Expectation:
    return Expectation("", "", "", {}, {}, {f"a.py::{test}[{test}]": values for test, values in observed.items()})


def made(text: str, recorded: dict[str, Expectation]) -> str:
    observations = loaders_page.collected(recorded, list(recorded), ("aya", "bcc"))
    return loaders_page.page(text, observations, list(recorded), ("aya", "bcc"))


TEXT = "before\n<!-- observed: path -->\nstale\n<!-- end -->\nbetween\n<!-- observed: left -->\n<!-- end -->\nbehind\n"


def test_a_table_has_a_row_for_each_observation() -> None:
    old = expectation(aya={"path: `x`": "a", "path: b": "p|q", "version": "1"}, bcc={"left: x": "__y_z `__z__` <a*"})
    new = expectation(aya={"path: `x`": "a", "path: b": "E: aya: r", "version": "1"})
    page = made(TEXT, {"6.1": old, "7.3": new})
    expected = r"""before
<!-- observed: path -->
On 6.1, 7.3:

| | aya 1 |
|---|---|
| b | 6.1: p\|q; 7.3: E: r |
| `x` | a |
<!-- end -->
between
<!-- observed: left -->
On 6.1, 7.3:

| | bcc - (not 7.3) |
|---|---|
| x | \_\_y_z `__z__` \<a\* |
<!-- end -->
behind
"""
    assert page == expected
    assert made(page, {"6.1": old}) == made(TEXT, {"6.1": old})


def test_a_loader_that_did_not_run_everywhere_says_so_once() -> None:
    recorded = {
        "6.1": expectation(aya={"path: xdp": "link"}, bcc={"path: xdp": "netlink"}),
        "7.3": expectation(aya={"path: xdp": "link"}),
    }
    page = made(TEXT, recorded)
    assert "bcc - (not 7.3)" in page
    assert "| xdp | link | netlink |" in page


def test_an_observation_without_a_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="other: x: the page has no <!-- observed: other -->"):
        made(TEXT, {"6.1": expectation(aya={"other: x": "1"})})


def test_two_values_of_one_observation_are_an_error() -> None:
    twice = Expectation("", "", "", {}, {}, {f"a.py::{n}[aya]": {"path: x": n} for n in "ab"})
    with pytest.raises(ValueError, match=r"6\.1, aya: path: x was observed as 'a' and 'b'"):
        made(TEXT, {"6.1": twice})


def test_a_test_without_a_loader_is_not_on_the_page() -> None:
    assert made(TEXT, {"6.1": expectation(other={"elsewhere: x": "1"})}) == made(TEXT, {"6.1": expectation()})
