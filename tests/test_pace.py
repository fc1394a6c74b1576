"""What follows from a guest's speed: limits that fit the machine as it is when the guest wakes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernel_matrix.relay import pace
from tests.fake_guest import JOB

REFERENCE = pace.REFERENCE_SECONDS


@pytest.mark.parametrize(
    ("times", "patience", "timeout", "speed", "silence"),
    [
        (0.5, 1.0, None, "1.00", "20.00"),
        (8.0, 1.0, None, "8.00", "160.00"),
        # a busy machine: the guest's own waits grow, how long it is believed to live does not
        (70.0, 1.0, None, "70.00", "200.00"),
        (8.0, 12.0, None, "12.00", "240.00"),
        (8.0, 1.0, 900.0, "8.00", "900.00"),
    ],
)
def test_limits_follow_the_speed(
    times: float, patience: float, timeout: float | None, speed: str, silence: str
) -> None:
    job = replace(JOB, patience=patience, silence_timeout=timeout)
    seconds = times * REFERENCE
    assert pace.limits(job, seconds) == {"HARNESS_SPEED": speed, "HARNESS_SILENCE": silence}
    assert pace.silence(job, seconds) == pytest.approx(float(silence))
    assert pace.slowness(seconds) == pytest.approx(max(1.0, times))
