"""What a console says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.console import START_MARK, Phases, fault, phases, since_test, tail
from harness.guest import plugin

CONSOLE = """\
[    1.0] Linux version 6.1.0
[    2.0] harness: start a.py::test_one[6.1]
[    2.1] one
[    3.0] harness: start a.py::test_two[6.1]
[    3.1] two
[    3.2] BUG: kernel NULL pointer dereference, address: 0000000000000000
[    3.3] Oops: 0002 [#1] PREEMPT SMP NOPTI
[    3.4] Kernel panic - not syncing: Fatal exception
"""


def test_a_test_gets_its_part_of_the_console() -> None:
    assert since_test(CONSOLE, "a.py::test_two[6.1]").startswith(START_MARK + "a.py::test_two[6.1]\n[    3.1] two")
    assert since_test(CONSOLE, "b.py::test_never_started") == CONSOLE


BOOT = """\
virtme: a line of virtme-ng itself
[    0.000000] Linux version 6.1.0
[    1.644217] Run /init as init process
[    2.115022] virtme initramfs: done; switching to real root
[    2.992438] virtme-ng-init: starting script (console fallback)
[   14.898209] harness: ready
"""


def test_a_boot_has_four_phases() -> None:
    assert phases(BOOT) == Phases(kernel=1.644217, initramfs=0.471, userspace=0.877, imports=11.906)
    assert phases(BOOT.replace("starting script", "")) is None
    assert phases("") is None


def test_the_guest_writes_the_mark_that_the_host_reads() -> None:
    assert plugin._START == START_MARK


def test_the_line_that_explains_most_is_the_fault() -> None:
    assert fault(CONSOLE) == "BUG: kernel NULL pointer dereference, address: 0000000000000000"
    assert fault("Kernel panic - not syncing: sysrq triggered crash\n") == (
        "Kernel panic - not syncing: sysrq triggered crash"
    )
    assert fault("[    1.0] Linux version 6.1.0\n") is None


def test_a_fault_without_a_panic_did_not_end_the_guest() -> None:
    assert fault("BUG: something the kernel survived\n") is None


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_the_tail_is_never_longer_than_asked(text: str, lines: int) -> None:
    assert tail(text, lines).count("\n") < lines
