"""What a console says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.shared.channel.console import START_MARK, Phases, excerpt, fault, phases, since_test

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
    part = since_test(CONSOLE, "a.py::test_two[6.1]")
    assert part is not None
    assert part.startswith(START_MARK + "a.py::test_two[6.1]\n[    3.1] two")
    assert since_test(CONSOLE, "b.py::test_never_started") is None


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


def test_the_line_that_explains_most_is_the_fault() -> None:
    assert fault(CONSOLE) == "BUG: kernel NULL pointer dereference, address: 0000000000000000"
    assert fault("Kernel panic - not syncing: sysrq triggered crash\n") == (
        "Kernel panic - not syncing: sysrq triggered crash"
    )
    assert fault("[    1.0] Linux version 6.1.0\n") is None
    garbled = "BUG: a\x0bb\r\nKernel panic - not syncing: c\r\n"
    assert fault(garbled) == "BUG: a"
    assert excerpt(f"{garbled}\n1\n2\n3\n4", 4) == "BUG: a\n... 4 lines ...\n3\n4"


def test_a_fault_without_a_panic_did_not_end_the_guest() -> None:
    assert fault("BUG: something the kernel survived\n") is None


PANIC = "[    3.3] Kernel panic - not syncing: sysrq triggered crash"


def test_an_excerpt_is_the_end() -> None:
    assert excerpt("one\n\n \ntwo\nthree\n", 2) == "two\nthree"
    assert excerpt("", 2) == ""
    assert excerpt(CONSOLE, 3).splitlines() == CONSOLE.splitlines()[-3:]


def test_of_a_fault_with_a_long_trace_both_ends_are_shown() -> None:
    """Seen: a shell in 6.1 whose trace had ten lines more than others, so that only registers were shown."""
    trace = [f"[    3.4]  frame {depth}" for depth in range(40)]
    console = "\n".join(["[    3.2] before", PANIC, *trace])
    assert excerpt(console, 10).splitlines() == [PANIC, *trace[:3], "... 32 lines ...", *trace[-5:]]
    assert excerpt(console, 41).splitlines() == [PANIC, *trace]
    # kernel/panic.c repeats what it said first when it does not reboot
    end = "[    3.5] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---"
    assert excerpt(f"{console}\n{end}", 10).splitlines() == [PANIC, *trace[:3], "... 33 lines ...", *trace[-4:], end]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cc", "Zl", "Zp"])), max_size=80),
    st.integers(min_value=0, max_value=80),
    st.integers(min_value=4, max_value=50),
)
def test_an_excerpt_has_its_lines_its_end_and_its_fault(text: list[str], where: int, lines: int) -> None:
    for console in (text, [*text[:where], PANIC, *text[where:]]):
        full = [line for line in console if line.strip()]
        shown = excerpt("\n".join(console), lines).splitlines()
        assert len(shown) == min(lines, len(full))
        assert shown[-2:] == full[-2:]
        assert (PANIC in shown) == (PANIC in full)
        assert all(line in full or line.startswith("... ") for line in shown)
