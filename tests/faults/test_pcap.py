"""The packets of a failing test reach the host, and those of a passing one do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scapy.layers.inet import UDP
from scapy.layers.l2 import Dot1Q
from scapy.utils import rdpcap

ROOT = Path(__file__).resolve().parents[2]
CASE = "tests/faults/cases/case_pcap.py"


def test_the_packets_of_a_failing_test_are_kept(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "kernel_matrix",
        "matrix",
        f"--results={tmp_path}",
        "--kernel",
        "6.1",
        "--pcap",
        CASE,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    assert done.returncode == 1, done.stdout
    folder = tmp_path / "latest" / "pcap" / "6.1"
    captures = {path.stem.removeprefix("tests_faults_cases_case_pcap_"): rdpcap(str(path)) for path in folder.iterdir()}
    assert {name: len(packets) for name, packets in captures.items()} == {
        "test_fails": 4,
        "test_fails_after_its_link_was_down": 2,
        "test_fails_within_its_pair": 1,
    }
    first, *_, last = captures["test_fails"]
    assert first[UDP].dport == 7
    assert last[Dot1Q].vlan == 7
