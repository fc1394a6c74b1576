"""Taking processors offline."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_matrix.guest.system.upkeep import processors


def test_all_but_the_first_are_offline_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, state in (("cpu1", "1\n"), ("cpu2", "0\n"), ("cpu10", "1\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "online").write_text(state)
    (tmp_path / "cpu0").mkdir()
    (tmp_path / "cpufreq").mkdir()
    monkeypatch.setattr(processors, "_PROCESSORS", tmp_path)

    def states() -> list[str]:
        return [(tmp_path / name / "online").read_text().strip() for name in ("cpu1", "cpu2", "cpu10")]

    with processors.only_one():
        assert states() == ["0", "0", "0"]
    # one that was offline before stays so
    assert states() == ["1", "0", "1"]
