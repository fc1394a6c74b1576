"""What a saved guest depends on."""

from __future__ import annotations

import pytest

from harness.accelerator import counter_rate


@pytest.mark.parametrize(
    ("cpuinfo", "rate"),
    [
        ("processor\t: 0\nmodel name\t: X\nbogomips\t: 4890.80\nflags\t\t: tsc\n", "4.89e+03"),
        # another boot of the same machine measures a little differently
        ("bogomips\t: 4890.14\n", "4.89e+03"),
        ("bogomips\t: 5988.00\n", "5.99e+03"),
        # arm64
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", "50"),
        # s390x
        ("# processors    : 2\nbogomips per cpu: 3033.00\n", ""),
        ("", ""),
    ],
)
def test_the_rate_of_the_processors_counter_is_part_of_what_a_guest_depends_on(cpuinfo: str, rate: str) -> None:
    assert counter_rate(cpuinfo) == rate
