"""The verifier's statistics, as kernels write them."""

from __future__ import annotations

import pytest

from kernel_matrix.shared.bpf.costs import Statistics, statistics

# 6.1's print_verification_stats(); the time's line comes first
LOG = """verification time 1234 usec
stack depth 104+16+0
processed 160 insns (limit 1000000) max_states_per_insn 1 total_states 12 peak_states 11 mark_read 4
"""


def test_statistics_are_read() -> None:
    assert statistics(LOG) == Statistics(160, 12, 11, 120, 0.001234)


def test_a_newer_kernel_names_the_deepest_call() -> None:
    """As 7.3 does; each function has a line of its own behind."""
    newer = LOG.replace("104+16+0", "max 112\nsubprog 0 (x) main insns_self 9 insns_total 9 stack 104")
    assert statistics(newer).stack == 112


@pytest.mark.parametrize("line", range(3))
def test_a_log_that_lacks_a_line_has_no_statistics(line: int) -> None:
    lines = LOG.splitlines()
    del lines[line]
    with pytest.raises(ValueError, match="no statistics"):
        statistics("\n".join(lines))


def test_an_error_has_the_end_of_the_log() -> None:
    with pytest.raises(ValueError, match="no statistics") as error:
        statistics("a" * 100 + "b" * 200)
    assert str(error.value).endswith(f": {'b' * 200!r}")
