"""What an object needs and what kernels have of it, from files; with a run, what was measured. Nothing is guessed."""

from __future__ import annotations

import functools
import json
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kernel_matrix.commands import compatibility as command
from kernel_matrix.objects import object_file, section_names
from kernel_matrix.objects.needed import compatibility
from kernel_matrix.objects.types import context_reads
from kernel_matrix.objects.types.kernel_types import KernelTypes, btf_of, options
from kernel_matrix.report import compatibility_page as pages
from kernel_matrix.results.evidence import ObjectEvidence
from kernel_matrix.shared.bpf.btf import Btf, BtfError
from kernel_matrix.shared.bpf.compatibility import (
    Answer,
    Compatibility,
    KernelColumn,
    Measurement,
    Need,
    Played,
    Requirement,
    State,
    moved,
)
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from tests import core_source
from tests.test_relocation import raw_btf
from tests.test_sarif import document

OBJECT = """
#define SEC(name) __attribute__((section(name), used))
#define CORE __attribute__((preserve_access_index))
char LICENSE[] SEC("license") = "GPL";
struct { int (*type)[30]; int (*max_entries)[8]; int *key, *value; } filter SEC(".maps");
struct { int (*type)[1]; int (*max_entries)[8]; int *key, *value; } plain SEC(".maps");
static void *(*lookup)(void *, const void *) = (void *)1;
static long (*copy)(void *, unsigned, const void *) = (void *)113;
static long (*newest)(void) = (void *)9;
extern int helper_of_kernel(void) SEC(".ksyms");
extern int optional(void) SEC(".ksyms") __attribute__((weak));
extern int CONFIG_HZ SEC(".kconfig");
extern int CONFIG_NONE SEC(".kconfig");
extern int CONFIG_MAYBE SEC(".kconfig") __attribute__((weak));
struct record { unsigned long long common; void *skb; unsigned short protocol; unsigned int reason; };
struct task { int pid; } CORE;
struct absent { int x; } CORE;
volatile long sink;

static __attribute__((noinline)) int deeper(struct record *record) { sink++; return record->reason; }

SEC("tracepoint/skb/drop") int fixed(struct record *record)
{
	unsigned short protocol;
	copy(&protocol, sizeof(protocol), &record->protocol);
	return deeper(record) + protocol;
}
struct trace_event_raw_drop { unsigned short protocol; } CORE;
SEC("tp/skb/drop") int registers(struct trace_event_raw_drop *record)
{
	unsigned long long hidden;
	unsigned short there;
	copy(&hidden, sizeof(hidden), record);
	copy(&there, sizeof(there), (char *)record + 16);
	return record->protocol + hidden + there;
}
SEC("tp_btf/drop") int arguments(unsigned long long *ctx) { return ctx[1]; }
SEC("kprobe/do_it") int relocated(struct task *task)
{
	int key = 0;
	lookup(&filter, &key);
	return task->pid;
}
SEC("lsm/no_such_hook") int hook(void *ctx) { return newest(); }
SEC("xdp") int counting(void *ctx) { return helper_of_kernel() + (optional ? optional() : 0); }
SEC("fentry/do_it") int configured(void *ctx)
{
	return CONFIG_HZ + CONFIG_NONE + CONFIG_MAYBE + __builtin_preserve_field_info(((struct absent *)ctx)->x, 2);
}
SEC("of_another_loader") int unknown(void *ctx) { return 0; }
"""

KERNEL = """
enum bpf_prog_type { BPF_PROG_TYPE_KPROBE = 2, BPF_PROG_TYPE_TRACEPOINT = 5, BPF_PROG_TYPE_XDP = 6,
	BPF_PROG_TYPE_TRACING = 26, BPF_PROG_TYPE_LSM = 29 } prog;
enum bpf_attach_type { BPF_XDP = 37, BPF_TRACE_RAW_TP = 23, BPF_TRACE_FENTRY = 24, BPF_LSM_MAC = 27 } attach;
struct trace_entry { unsigned short type; unsigned char flags, preempt_count; int pid; };
"""
#: the record is shorter, the argument is missing, the new map and helper are unknown
OLD = (
    KERNEL
    + """
enum bpf_map_type { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2 } map;
enum bpf_func_id { BPF_FUNC_map_lookup_elem = 1, BPF_FUNC_probe_read_kernel = 113 } func;
struct trace_event_raw_drop { struct trace_entry ent; void *skb; unsigned short protocol; char __data[]; } drop;
typedef void (*btf_trace_drop)(void *, void *skb);
btf_trace_drop of_drop;
struct task { char pad[100]; int pid; } task;
int __attribute__((section("x"))) do_it(struct task *task) { return 0; }
int __attribute__((section("x"))) helper_of_kernel(void) { return 0; }
"""
)
NEW = (
    KERNEL
    + """
enum bpf_map_type { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_BLOOM_FILTER = 30 } map;
enum bpf_func_id { BPF_FUNC_map_lookup_elem = 1, BPF_FUNC_newest = 9, BPF_FUNC_probe_read_kernel = 113 } func;
struct trace_event_raw_drop { struct trace_entry ent; void *skb; unsigned short protocol; unsigned int reason;
	char __data[]; } drop;
typedef void (*btf_trace_drop)(void *, void *skb, int reason);
btf_trace_drop of_drop;
struct task { char pad[200]; long pid; } task;
int __attribute__((section("x"))) do_it(struct task *task) { return 0; }
int __attribute__((section("x"))) helper_of_kernel(void) { return 0; }
"""
)
#: a field was put before the ones that the program reads
NEWEST = NEW.replace("void *skb; unsigned short", "void *skb; void *sock; unsigned short")


@functools.cache
def folder() -> Path:
    place = Path(tempfile.mkdtemp(prefix="compatibility-"))
    for name, source in (("x", OBJECT), ("old", OLD), ("new", NEW), ("newest", NEWEST)):
        core_source.compiled(place, name, source)
    return place


@functools.cache
def kernels() -> dict[str, KernelTypes]:
    config = {
        "old": "CONFIG_HZ=250\n# CONFIG_NONE is not set\n",
        "new": "CONFIG_HZ=1000\nCONFIG_NONE=y\n",
        "newest": "",
    }
    return {name: KernelTypes(name, Btf(raw_btf(folder() / f"{name}.o")), options(config[name])) for name in config}


@functools.cache
def page() -> Compatibility:
    columns = [KernelColumn(name, f"{name}-release") for name in kernels()]
    return compatibility.of_object((folder() / "x.o").read_bytes(), "build/x.bpf.o", columns, kernels())


def need(kind: Need, program: str, part: str = "") -> Requirement:
    (one,) = [one for one in page().of_program(program) if one.need is kind and part in one.name]
    return one


def answers(one: Requirement) -> list[tuple[str, str, str]]:
    return [(str(answer.state), answer.text, answer.refused_at) for answer in one.answers.values()]


# -- what is read at fixed offsets


def test_a_field_that_has_moved_is_named() -> None:
    """Read through a function: refused where the record ends before it, another field where one was put before it."""
    one = need(Need.CONTEXT, "fixed", "20 to 24")
    assert one.name == "tracepoint/skb/drop: bytes 20 to 24, which the program takes for reason"
    assert answers(one) == [
        ("no", "behind the end, 18 bytes", "attach"),
        ("yes", "reason", ""),
        ("no", "bytes 4 to 8 of sock; reason is at 28", ""),
    ]
    assert one in moved(page().requirements)


def test_a_copy_by_a_helper_is_a_read_too() -> None:
    one = need(Need.CONTEXT, "fixed", "16 to 18")
    assert [text for _, text, _ in answers(one)] == ["protocol", "protocol", "bytes 0 to 2 of sock; protocol is at 24"]


def test_the_registers_address_is_no_field_of_a_record() -> None:
    """It is over the first eight bytes on every kernel; a struct whose fields are relocated names no place."""
    hidden = need(Need.CONTEXT, "registers", "0 to 8")
    assert hidden.name == "tp/skb/drop: bytes 0 to 8"
    assert answers(hidden) == [("yes", "the address of the registers", "")] * 3
    assert need(Need.CONTEXT, "registers", "16 to 18").name == "tp/skb/drop: bytes 16 to 18"
    assert [text for _, text, _ in answers(need(Need.RELOCATION, "registers"))] == [
        "16 (2 bytes)", "16 (2 bytes)", "24 (2 bytes)",
    ]  # fmt: skip


def test_an_argument_of_a_tracepoint_is_checked_too() -> None:
    assert answers(need(Need.CONTEXT, "arguments")) == [
        ("no", "behind the end, 8 bytes", "load"), ("yes", "int", ""), ("yes", "int", ""),
    ]  # fmt: skip


def test_a_relocated_load_is_no_fixed_offset() -> None:
    read = object_file.read((folder() / "x.o").read_bytes(), "x.o")
    (program,) = [one for one in read.programs if one.name == "relocated"]
    assert context_reads.of_program(read, program) == ()
    # 100 and 200 bytes of padding; as wide a load as the kernel's field needs, unless it is a signed one
    assert answers(need(Need.RELOCATION, "relocated")) == [
        ("yes", "100 (4 bytes)", ""),
        ("no", "of another size and signed: it cannot be read so", ""),
        ("no", "of another size and signed: it cannot be read so", ""),
    ]


@pytest.mark.parametrize(
    ("body", "reads"),
    [
        ("r2 = *(u32 *)(r1 + 28)", [(28, 4)]),
        ("r1 += 20\nr2 = *(u16 *)(r1 + 8)", [(28, 2)]),
        ("r6 = r1\ncall 7\nr2 = *(u8 *)(r6 + 3)", [(3, 1)]),
        # kept on the stack over a call
        ("*(u64 *)(r10 - 8) = r1\ncall 7\nr3 = *(u64 *)(r10 - 8)\nr2 = *(u64 *)(r3 + 16)", [(16, 8)]),
        # what was there is overwritten in part
        ("*(u64 *)(r10 - 8) = r1\n*(u32 *)(r10 - 4) = r1\nr3 = *(u64 *)(r10 - 8)\nr2 = *(u64 *)(r3 + 16)", []),
        # after a call its register is no context any more
        ("call 7\nr2 = *(u64 *)(r1 + 16)", []),
        # both ways lead to the same offset, and to two
        ("if r2 == 0 goto +1\nr3 = 1\nr2 = *(u64 *)(r1 + 16)", [(16, 8)]),
        ("if r2 == 0 goto +1\nr1 += 8\nr2 = *(u64 *)(r1 + 16)", []),
        # a loop that moves it
        ("r1 += 8\nif r2 != 0 goto -2\nr2 = *(u64 *)(r1 + 0)", []),
        ("r4 = 8\nr1 += r4\nr2 = *(u64 *)(r1 + 0)", [(8, 8)]),
        ("r1 += r2\nr3 = *(u64 *)(r1 + 0)", []),
    ],
)
def test_a_context_is_followed_through_registers(tmp_path: Path, body: str, reads: list[tuple[int, int]]) -> None:
    code = "\\n".join(body.split("\n"))
    source = (
        f'__attribute__((naked, section("kprobe"), used)) int p(void *c) {{ asm volatile("{code}\\nr0 = 0\\nexit"); }}'
    )
    read = object_file.read(core_source.compiled(tmp_path, "p", source).read_bytes(), "p.o")
    followed = [(one.offset, one.size) for one in context_reads.of_program(read, read.programs[0])]
    assert followed == reads


# -- what else is needed


def test_an_unknown_type_of_map_refuses_every_program() -> None:
    one = need(Need.MAP_TYPE, "unknown", "BLOOM")
    assert one.name == "BPF_MAP_TYPE_BLOOM_FILTER (filter)"
    assert answers(one)[0] == ("no", "unknown to this kernel: the object is refused", "load")
    assert len(one.programs) == len(page().programs)


def test_a_missing_helper_counts_only_where_it_is_reached() -> None:
    one = need(Need.HELPER, "hook")
    assert one.name == "bpf_newest"
    assert answers(one)[0] == ("no", "unknown to this kernel: refused where the call is reached", "")
    assert one in page().doubts("hook", "old")


def test_a_hook_that_is_in_no_module_is_certainly_missing() -> None:
    assert {refused for _, _, refused in answers(need(Need.TARGET, "hook"))} == {"load"}


def test_what_a_module_may_have_is_unknown() -> None:
    """A type that vmlinux lacks, and a function of the kernel that may not be callable."""
    for one in (need(Need.RELOCATION, "configured"), need(Need.FUNCTION, "counting", "helper_of_kernel")):
        assert {state for state, _, _ in answers(one)} == {"unknown"}
    assert need(Need.FUNCTION, "counting", "optional").optional


def test_an_option_that_must_be_set_is_looked_up() -> None:
    assert answers(need(Need.CONFIG, "configured", "HZ"))[:2] == [("yes", "250", ""), ("yes", "1000", "")]
    none = need(Need.CONFIG, "configured", "NONE")
    assert answers(none) == [
        ("no", "not set", "load"), ("yes", "y", ""), ("unknown", "its configuration is unavailable", ""),
    ]  # fmt: skip
    assert none in page().refusals("configured", "old")
    maybe = need(Need.CONFIG, "configured", "MAYBE")
    assert maybe.optional
    assert maybe not in page().refusals("configured", "old")


def test_a_section_of_another_loader_has_no_type() -> None:
    (program,) = [one for one in page().programs if one.name == "unknown"]
    assert (program.type, program.target) == ("", "")


@pytest.mark.parametrize(
    ("section", "kind", "attach", "target"),
    [
        ("kprobe/do_it+4", "KPROBE", "", "do_it+4"),
        ("?kprobe/do_it", "KPROBE", "", "do_it"),
        ("kprobe", "KPROBE", "", ""),
        ("tcx/ingress", "SCHED_CLS", "TCX_INGRESS", ""),
        ("xdp.frags/devmap", "XDP", "XDP_DEVMAP", ""),
        ("tp/skb/kfree_skb", "TRACEPOINT", "", "skb/kfree_skb"),
        ("fentry.s/x", "TRACING", "TRACE_FENTRY", "x"),
        # libbpf takes a section of this name alone, with nothing behind it
        ("xdp/eth0", "", "", ""),
        ("xdp_filter", "", "", ""),
        ("kprobes/x", "", "", ""),
    ],
)
def test_a_section_is_taken_as_libbpf_takes_it(section: str, kind: str, attach: str, target: str) -> None:
    parsed = section_names.parse(section)
    assert (parsed.type, parsed.attach, parsed.target) == (kind, attach, target)


def test_the_source_of_a_program_is_its_first_line() -> None:
    (program,) = [one for one in page().programs if one.name == "fixed"]
    assert Path(program.file).name == "x.c"
    assert "int fixed" in OBJECT.splitlines()[program.line - 1]


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x9f\xeb\x01\x00" * 9])
def test_a_kernel_without_types_is_said_to_have_none(data: bytes) -> None:
    with pytest.raises(BtfError):
        btf_of(data)
    with pytest.raises(BtfError):
        Btf(data)


def test_another_file_is_refused_in_one_line() -> None:
    for data in (b"", b"\x7fELF" + bytes(60), (folder() / "x.o").read_bytes()[:3000]):
        with pytest.raises(ManifestError) as error:
            object_file.read(data, "x.o")
        assert "\n" not in str(error.value)


@settings(max_examples=60, phases=[Phase.generate])
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_object_is_read_or_refused_in_one_line(changes: list[tuple[int, int]]) -> None:
    """Whatever bytes are changed: no traceback, and no endless loop."""
    data = bytearray((folder() / "x.o").read_bytes())
    for place, byte in changes:
        data[place % len(data)] = byte
    refused = ""
    try:
        damaged = compatibility.of_object(bytes(data), "x.o", [KernelColumn("new", "r")], kernels())
        pages.markdown(damaged)
    except ManifestError as error:
        refused = str(error)
    assert "\n" not in refused


# -- with a run

RUN = document(
    Cell("old", "build/x.bpf.o::fixed::load", Outcome.PASS),
    Cell("old", "build/x.bpf.o::fixed::attach", Outcome.FAIL, detail="EACCES at attach"),
    Cell("new", "build/x.bpf.o::fixed::load", Outcome.PASS),
    Cell("new", "build/x.bpf.o::fixed::attach", Outcome.PASS),
    Cell("new", "build/x.bpf.o::fixed::capabilities", Outcome.PASS, observed=(("needs", "BPF+PERFMON"),)),
    Cell("new", "build/y.bpf.o::fixed::load", Outcome.FAIL),
    Cell("new", "build/x.bpf.o::no_program::load", Outcome.FAIL),
    Cell("old", "build/x.bpf.o::scenario::datagrams", Outcome.FAIL, detail="ports[53]: expected 1, is 0"),
    Cell("new", "build/x.bpf.o::scenario::datagrams", Outcome.PASS),
    Cell("new", "build/x.bpf.o::scenario::streams", Outcome.PASS),
    Cell("new", "build/y.bpf.o::scenario::of another", Outcome.PASS),
)


def measured() -> Compatibility:
    same = ObjectEvidence("build/x.bpf.o", page().sha256, ("old", "new"))
    return command.measured(page(), replace(RUN, objects=(same,)), Path("results/latest"))


def test_only_what_a_run_measured_is_called_measured() -> None:
    """Cells of this content, on the kernels that had it; the rest of the page stays derived."""
    with_run = measured()
    assert {(one.kernel, one.step) for one in with_run.measured} == {
        ("old", "load"), ("old", "attach"), ("new", "load"), ("new", "attach"), ("new", "capabilities"),
    }  # fmt: skip
    assert (with_run.oldest("fixed", "load"), with_run.oldest("fixed", "attach")) == ("old", "new")
    assert pages.status(with_run, "fixed", "old") == "measured: load ✓; attach ✗ EACCES at attach"
    assert pages.status(with_run, "fixed", "new").endswith("capabilities ✓; needs: BPF+PERFMON")
    assert pages.status(with_run, "hook", "new").startswith("not measured; ")


def test_scenarios_are_on_the_page_with_their_kernels() -> None:
    (table,) = [one for one in pages.tables(measured()) if one.title == "What it does"]
    names = [column.partition(" ")[0] for column in table.head]
    rows = {row[0]: dict(zip(names[1:], row[1:], strict=True)) for row in table.rows}
    assert {name: (row["old"], row["new"]) for name, row in rows.items()} == {
        "datagrams": ("✗ ports[53]: expected 1, is 0", "✓"),
        "streams": ("not measured", "✓"),
    }
    assert not [one for one in pages.tables(page()) if one.title == "What it does"]


def test_a_program_that_reads_another_field_is_no_success() -> None:
    """What was measured does not hide what the files say: nothing is refused there, and the values are wrong."""
    passed = Measurement("fixed", "newest", "attach", Outcome.PASS)
    shown = pages.status(replace(page(), measured=(passed,)), "fixed", "newest")
    assert shown.startswith("measured: attach ✓; by its files reads another field: tracepoint/skb/drop: bytes ")


def test_a_run_of_another_object_is_refused() -> None:
    """The same name with another content measured another object."""
    with pytest.raises(HarnessError, match="no object of this run has the sha256"):
        command.measured(page(), RUN, Path("results/latest"))


@pytest.mark.parametrize(
    ("program", "kernel", "text"),
    [
        ("fixed", "newest", "not measured; by its files reads another field: "),
        ("fixed", "old", "not measured; by its files refused for "),
        (
            "relocated",
            "new",
            "not measured; by its files lacks struct task.pid: offset, which counts where it is reached",
        ),
        ("fixed", "new", "not measured; nothing against it in its files"),
    ],
)
def test_without_a_run_each_cell_says_what_the_files_say(program: str, kernel: str, text: str) -> None:
    assert pages.status(page(), program, kernel).startswith(text)


def test_a_kernel_that_was_not_read_has_nothing_said_of_it() -> None:
    columns = [KernelColumn("old", "r", "the kernel has no BTF")]
    bare = compatibility.of_object((folder() / "x.o").read_bytes(), "x", columns, {})
    assert pages.status(bare, "fixed", "old") == "not measured; the kernel was not read"
    assert "old: the kernel has no BTF" in pages.markdown(bare)


def test_the_badge_claims_what_was_measured_of_every_program() -> None:
    """One program of seven was: no kernel is claimed. With all of them it is; without a run, nothing."""
    assert pages.working(page()) is None
    assert pages.working(measured()) == ()
    every = [
        Measurement(program.name, kernel, step, Outcome.PASS)
        for program in page().programs for kernel in ("old", "new") for step in ("load", "attach")
    ]  # fmt: skip
    all_pass = replace(page(), measured=tuple(every))
    assert pages.working(all_pass) == ("old", "new")
    one_refused = (*every[:-1], replace(every[-1], outcome=Outcome.REFUSED))
    assert pages.working(replace(page(), measured=one_refused)) == ("old",)
    failed = Played("datagrams", "new", Outcome.FAIL)
    assert pages.working(replace(all_pass, played=(failed, Played("datagrams", "old", Outcome.PASS)))) == ("old",)
    assert pages.working(replace(page(), played=(failed,))) is None
    for shown, text in ((page(), "not measured"), (all_pass, "old, new"), (measured(), "none")):
        assert ET.fromstring(pages.badge(shown)).get("aria-label") == f"works on kernels: {text}"


def test_all_forms_have_every_table() -> None:
    hostile = replace(measured(), object="<b>|x|</b>", notes=("a | b\x1b[31m",))
    text, html, data = pages.markdown(hostile), pages.html(hostile), json.loads(pages.json(hostile))
    for table in pages.tables(hostile):
        assert f"## {table.title}\n" in text
        assert f"<h2>{table.title}</h2>" in html
    for row in [line for line in text.splitlines() if line.startswith("|")]:
        assert row.endswith(" |")
    assert "<b>" not in html
    assert "\x1b" not in html
    assert len(data["requirements"]) == len(hostile.requirements)
    assert data["measured"][0]["outcome"] == "pass"


def test_the_command_writes_four_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "of_object", lambda *_: page())
    path = folder() / "x.o"
    lines = [*command.run(None, path, [], None, tmp_path / "new" / "folder")]  # type: ignore[arg-type] # not used then
    assert [Path(line).name for line in lines] == ["x.html", "x.md", "x.json", "x.svg"]
    (text,) = command.run(None, path, [], None, None)  # type: ignore[arg-type]
    assert text + "\n" == (tmp_path / "new" / "folder" / "x.md").read_text()


def test_kernels_are_in_the_order_of_their_releases() -> None:
    names = ["7.3.4+deb13-amd64", "6.12.117", "5.10.0-46-amd64", "6.1.0-56-amd64", "mine"]
    assert sorted(names, key=command._age) == [
        "mine",
        "5.10.0-46-amd64",
        "6.1.0-56-amd64",
        "6.12.117",
        "7.3.4+deb13-amd64",
    ]


def _required(**answers: Answer) -> Requirement:
    return Requirement(Need.RELOCATION, "x", ("f",), answers)


@pytest.mark.parametrize(
    ("answers", "differs"),
    [
        ((), False),
        ((Answer(State.YES, "8"),), False),
        ((Answer(State.YES, "8"), Answer(State.YES, "8")), False),
        ((Answer(State.YES, "8"), Answer(State.YES, "16")), True),
        ((Answer(State.YES), Answer(State.NO)), True),
        # what is not known is no difference
        ((Answer(State.YES), Answer(State.UNKNOWN)), False),
        ((Answer(State.NO), Answer(State.YES), Answer(State.UNKNOWN)), True),
    ],
)
def test_a_need_differs_where_two_kernels_are_known_to(answers: tuple[Answer, ...], differs: bool) -> None:
    assert _required(**{f"k{number}": answer for number, answer in enumerate(answers)}).differs is differs


def test_what_a_kernel_lacks_without_refusing_is_a_doubt() -> None:
    """Unless it is refused for it, the object is made without it, or it asks whether it is there and gets a 0."""
    no = Answer(State.NO)
    lacking = _required(a=no, b=replace(no, refused_at="load"), c=replace(no, value=0), d=replace(no, value=4))
    assert not lacking.optional
    assert lacking.missing == ("a", "b", "c", "d")
    assert _required(a=Answer(State.UNKNOWN), b=Answer(State.YES)).missing == ()
    page = Compatibility(1, "x.o", "", (), (), {}, (lacking, replace(lacking, optional=True)))
    doubted = {kernel: page.doubts("f", kernel) for kernel in "abcd"}
    assert doubted == {"a": (lacking,), "b": (), "c": (), "d": (lacking,)}


def test_what_was_measured_is_of_one_program_kernel_and_step() -> None:
    measured = tuple(
        Measurement(program, kernel, step, outcome)
        for program, kernel, step, outcome in [
            ("f", "2", "load", Outcome.PASS),
            ("f", "1", "load", Outcome.REFUSED),
            ("f", "1", "attach", Outcome.PASS),
            ("g", "1", "load", Outcome.PASS),
            ("f", "3", "load", Outcome.PASS),
        ]
    )
    page = Compatibility(1, "x.o", "", tuple(KernelColumn(name, "") for name in "123"), (), {}, (), measured)
    assert page.outcomes("f", "1") == measured[1:3]
    assert [page.oldest(program, "load") for program in "fgh"] == ["2", "1", ""]
