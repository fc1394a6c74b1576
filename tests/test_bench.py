"""The table of measurements."""

from __future__ import annotations

from harness import bench, wire
from harness.bench import Report, Row, Sample


def test_the_table_has_medians_spreads_and_the_ratio_of_each_pair() -> None:
    row = Row(
        "6.1", (Sample(10.0, 12.0), Sample(14.0, 8.0), Sample(11.0, 9.0)), (Sample(0.5, 1.0),) * 2 + (Sample(0.7, 0.5),)
    )
    report = Report("2 processors", "emulated", (row,))
    assert bench.markdown(report).splitlines()[-1] == (
        "| 6.1 | 11.00 (10.00 to 14.00) | 9.00 (8.00 to 12.00) | 0.50 (0.50 to 0.70) | 1.00 (0.50 to 1.00)"
        " | 12.00 (8.00 to 18.00) |"
    )
    assert wire.decode(wire.encode(report), Report) == report
