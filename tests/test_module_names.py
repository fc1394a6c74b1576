"""Which modules an object needs: what it takes from the kernel, what each module has, what is kept and brought."""

from __future__ import annotations

import io
import json
import lzma
import struct
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.guest.bpf import kernel_modules as guest_modules
from kernel_matrix.images import KernelImage
from kernel_matrix.images import modules as module_files
from kernel_matrix.images.modules import Modules
from kernel_matrix.images.packages import unpack
from kernel_matrix.objects import build, object_file
from kernel_matrix.objects.needed import module_names
from kernel_matrix.objects.object_file import ObjectFile
from kernel_matrix.plan.bpf import kernel_modules
from kernel_matrix.plan.bpf.kernel_modules import Conclusion, KernelModules
from kernel_matrix.relay import payload
from kernel_matrix.shared.bpf.btf import Btf, Kind
from kernel_matrix.shared.bpf.object_table import ObjectSettings, ObjectTable
from kernel_matrix.shared.errors import ImageError
from tests.projects import HERE, below

SOURCE = r"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define CORE __attribute__((preserve_access_index))
struct conn___old { long status; } CORE;
enum state { OPEN, CLOSED };
struct congestion { int (*init)(void); };
extern int bpf_ask(int n) __ksym;
extern int bpf_weakly(int n) __weak __ksym;

SEC("fentry/in_module") int a(void *ctx) { return bpf_ask(1); }
SEC("fexit.s/other_function") int b(void *ctx) { return 0; }
SEC("kprobe/with_offset+0x10") int c(void *ctx) { return 0; }
SEC("kprobe.multi/many_*") int d(void *ctx) { return 0; }
SEC("kprobe") int e(void *ctx) { return 0; }
SEC("ksyscall/execve") int f(void *ctx) { return 0; }
SEC("uprobe//bin/sh:main") int g(void *ctx) { return 0; }
SEC("tp_btf/raw_event") int h(void *ctx) { return 0; }
SEC("tp/mac80211/drv_start") int i(void *ctx) { return 0; }
SEC("tracepoint/syscalls/sys_enter_execve") int j(void *ctx) { return bpf_weakly ? bpf_weakly(2) : 0; }
SEC("iter/thing") int k(void *ctx) { return 0; }
SEC("xdp") int l(void *ctx) { struct conn___old *at = ctx; return BPF_CORE_READ(at, status)
        + bpf_core_enum_value(enum state, CLOSED); }
SEC("lsm/file_open") int m(void *ctx) { return 0; }
SEC("struct_ops") int start(void) { return 0; }
SEC(".struct_ops") struct congestion mine = { .init = (void *)start };
char LICENSE[] SEC("license") = "GPL";
"""
NAMES = {
    "func in_module", "func other_function", "func with_offset", "func bpf_ask", "func bpf_weakly",
    "type btf_trace_raw_event", "event drv_start", "func bpf_iter_thing", "type conn", "type state",
    "type bpf_struct_ops_congestion",
}  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elf")
    (folder / "x.bpf.c").write_text(SOURCE)
    build.compile_source(folder / "x.bpf.c", folder / "x.bpf.o", (), root=folder)
    return folder / "x.bpf.o"


@pytest.fixture(scope="module")
def file(compiled: Path) -> ObjectFile:
    return object_file.read(compiled.read_bytes(), "x")


def test_what_an_object_takes_by_its_name(file: ObjectFile) -> None:
    """Not what a pattern, a system call, a program of the user or an LSM hook names: none is in a module."""
    assert module_names.of_object(file, ObjectSettings()) == NAMES


def test_the_table_names_targets_and_sections_too(file: ObjectFile) -> None:
    settings = ObjectSettings(targets={"e": "chosen", "h": "another", "g": "/x:f"}, sections={"l": "kprobe/declared"})
    names = module_names.of_object(file, settings)
    assert names - NAMES == {"func chosen", "type btf_trace_another", "func declared"}
    assert NAMES - names == {"type btf_trace_raw_event"}
    # of another program
    assert module_names.of_object(file, ObjectSettings(targets={"e": "y.bpf.o:entry"})) - NAMES == set()


def test_what_the_kernel_has_itself_is_not_missing(file: ObjectFile) -> None:
    """The object's own types stand for a kernel's: its functions, a flavour of a struct, an enum."""
    kernel = file.btf
    assert kernel is not None
    asked = {"func a", "func bpf_ask", "type conn", "type state", "type gone", "func gone", "event gone", "type a"}
    assert module_names.missing(asked, kernel) == {"type gone", "func gone", "event gone", "type a"}


def _split(kernel: Btf) -> bytes:
    """Return the BTF of a module: a struct, a typedef whose name the kernel's strings have, a declared struct."""
    base = len(kernel._strings)
    known = kernel._strings.index(b"\0status\0") + 1
    strings = b"in_this_one\0only_declared\0"
    types = b"".join(
        struct.pack("<III", name, kind << 24, 4)
        for name, kind in ((base, Kind.STRUCT), (known, Kind.TYPEDEF), (base + 12, Kind.FWD))
    )
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


MODULE = """
int outside(int n);
int in_module(int n) { return outside(n) + 1; }
static __attribute__((noinline, used)) int quiet(int n) { return n; }
int __tracepoint_drv_start = 3, variable = 4;
__attribute__((section(".BTF"), used)) static const unsigned char btf[] = { BYTES };
"""


@pytest.fixture
def module(tmp_path: Path, file: ObjectFile) -> bytes:
    assert file.btf is not None
    text = MODULE.replace("BYTES", ", ".join(map(str, _split(file.btf))))
    (tmp_path / "m.c").write_text(text)
    subprocess.run(["clang", "-O1", "-c", "m.c", "-o", "m.o"], cwd=tmp_path, check=True)
    return (tmp_path / "m.o").read_bytes()


def test_a_module_has_functions_tracepoints_and_types(module: bytes, file: ObjectFile) -> None:
    """Not what it takes from others, its variables, and what it only declares."""
    assert file.btf is not None
    assert sorted(module_names.of_module(module, file.btf)) == [
        *("event drv_start", "func in_module", "func quiet", "type in_this_one", "type status")
    ]


# -- kept in the cache

#: modules -> the names that each has
HAVE = {
    "kernel/a_user.ko": ["type conn", "func init_module"],
    "kernel/b_user.ko.xz": ["type conn", "func init_module"],
    "kernel/core.ko": ["type conn", "func start.cold"],
    "kernel/base-lib.ko": ["func helper"],
}
DEPENDS = """kernel/a_user.ko: kernel/core.ko kernel/base-lib.ko
kernel/b_user.ko.xz: kernel/core.ko kernel/base-lib.ko
kernel/core.ko: kernel/base-lib.ko
kernel/base-lib.ko:
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Modules:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path / "cache"))

    def fill(tree: Path) -> str:
        for name in HAVE:
            path = tree / "lib/modules/6.1" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = f"content of {name}".encode()
            path.write_bytes(lzma.compress(content) if name.endswith(".xz") else content)
        return "6.1"

    def depmod(tree: Path, release: str) -> None:
        (tree / "lib/modules" / release / "modules.dep").write_text(DEPENDS)

    monkeypatch.setattr(unpack, "depmod", depmod)
    made = module_files.build(
        module_files.folder(["x"]), fill, lambda content: HAVE[content.decode().removeprefix("content of ")]
    )
    assert module_files.cached(module_files.folder(["x"])) == made
    return made


def test_a_name_leads_to_the_module_that_others_depend_on(modules: Modules) -> None:
    """Of equals, to the one that needs least."""
    assert modules.having(["type conn", "func helper", "func start.cold", "func init_module", "func start_cold"]) == {
        "type conn": "kernel/core.ko",
        "func helper": "kernel/base-lib.ko",
        "func start.cold": "kernel/core.ko",
        "func init_module": "kernel/a_user.ko",
    }


def test_modules_come_behind_those_that_they_need(modules: Modules) -> None:
    assert modules.in_order(["kernel/b_user.ko.xz", "kernel/core.ko"]) == (
        *("kernel/base-lib.ko", "kernel/core.ko", "kernel/b_user.ko.xz"),
    )
    assert modules.called(["base_lib", "core", "none"]) == {
        "base_lib": "kernel/base-lib.ko", "core": "kernel/core.ko"
    }  # fmt: skip
    assert modules.content("kernel/b_user.ko.xz") == b"content of kernel/b_user.ko.xz"


# -- what is brought


class Fake(KernelModules):
    """A kernel with the object's own types, and these modules."""

    said: list[str]

    def __init__(self, folder: Path, types: Btf, modules: Modules | None) -> None:
        tree = folder / "image" / "lib/modules/6.1"
        tree.mkdir(parents=True, exist_ok=True)
        (tree / "modules.dep").write_text("kernel/in-image.ko:\n")
        image = KernelImage("6.1", "6.1", "1", folder / "image/boot/vmlinuz-6.1", folder, folder)
        known = manifest.load(HERE.images)
        lines: list[str] = []
        super().__init__(known, known.kernels[0], image, lines.append)
        self.__dict__.update(types=types, said=lines)
        if modules is not None:
            self.__dict__["all"] = modules


def _prepared(
    folder: Path, compiled: Path, fake: Fake, settings: ObjectSettings | None = None
) -> dict[str, dict[str, list[str]]] | None:
    """Prepare a project with the object; return what the guest is told."""
    (folder / "x.bpf.o").write_bytes(compiled.read_bytes())
    table = ObjectTable({"x.bpf.o": settings} if settings else {})
    project = below(folder, objects=("*.bpf.o",), object_table=table, tests=())
    target = folder / "brought"
    if kernel_modules.prepare(project, fake, target).modules is None:
        return None
    rows: dict[str, dict[str, list[str]]] = json.loads((target / "needed.json").read_text())
    brought = {path.stem for path in target.glob("*.ko")}
    assert brought == {name for row in rows.values() for name in row["modules"]}
    return rows


@pytest.fixture
def bare(file: ObjectFile) -> Btf:
    """The types of a kernel without anything that the object takes."""
    # a header without types and with one empty string
    return Btf(struct.pack("<HBBIIIIIB", 0xEB9F, 1, 0, 24, 0, 0, 0, 1, 0))


def test_what_a_module_has_is_brought_and_the_rest_named(
    tmp_path: Path, compiled: Path, modules: Modules, bare: Btf
) -> None:
    rows = _prepared(tmp_path, compiled, Fake(tmp_path, bare, modules))
    lacking = {name.partition(" ")[2] for name in NAMES} - {"conn", "btf_trace_raw_event", "bpf_struct_ops_congestion"}
    assert rows == {
        "x.bpf.o": {"modules": ["base_lib", "core"], "lacking": sorted({*lacking, "raw_event", "congestion"})}
    }


def test_what_the_table_names_comes_instead(tmp_path: Path, compiled: Path, modules: Modules, bare: Btf) -> None:
    fake = Fake(tmp_path, bare, modules)
    rows = _prepared(tmp_path, compiled, fake, ObjectSettings(modules=("b_user",)))
    assert rows == {"x.bpf.o": {"modules": ["base_lib", "core", "b_user"], "lacking": []}}


def test_what_the_image_has_is_not_looked_for(tmp_path: Path, compiled: Path, modules: Modules, bare: Btf) -> None:
    """The guest loads it; reading all modules of a kernel takes a minute."""
    fake = Fake(tmp_path, bare, None)
    assert _prepared(tmp_path, compiled, fake, ObjectSettings(modules=("in_image",))) is None
    # nor was it tried
    assert fake.said == []


def test_that_all_modules_are_read_is_one_line(
    tmp_path: Path, bare: Btf, modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(tmp_path, bare, None)

    def read(_manifest: object, _kernel: object, _image: object, describe: Callable[[bytes], object]) -> Modules:
        assert fake.said == []
        describe(b"")
        describe(b"")
        return modules

    monkeypatch.setattr("kernel_matrix.images.kernel_modules", read)
    monkeypatch.setattr(module_names, "of_module", lambda *_: ())
    assert fake.all is modules
    assert [line.partition(" (")[0] for line in fake.said] == [
        f"{fake.kernel.name}: reading its modules for what objects need"
    ]


def test_a_conclusion_is_kept_for_the_same_object(
    tmp_path: Path, compiled: Path, modules: Modules, bare: Btf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And settings, and kernel."""
    fake = Fake(tmp_path, bare, modules)
    first = kernel_modules._kept(compiled.read_bytes(), ObjectSettings(), fake)
    assert first.paths

    def concludes(*_: object) -> Conclusion:
        return Conclusion(("new",))

    monkeypatch.setattr(kernel_modules, "_conclude", concludes)
    assert kernel_modules._kept(compiled.read_bytes(), ObjectSettings(), fake) == first
    assert kernel_modules._kept(compiled.read_bytes() + b"\0", ObjectSettings(), fake) == Conclusion(("new",))
    assert kernel_modules._kept(compiled.read_bytes(), ObjectSettings(("x",)), fake) == Conclusion(("new",))
    other = Fake(tmp_path, bare, modules)
    other.__dict__["image"] = replace(fake.image, vmlinuz=tmp_path / "other/boot/vmlinuz-6.1")
    assert kernel_modules._kept(compiled.read_bytes(), ObjectSettings(), other) == Conclusion(("new",))


def test_unavailable_modules_are_a_line_of_the_run(
    tmp_path: Path, compiled: Path, modules: Modules, bare: Btf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects have those of the image then; and the next run asks again."""

    def unavailable(*_: object) -> Modules:
        raise ImageError("no mirror")

    monkeypatch.setattr(images, "kernel_modules", unavailable)
    fake = Fake(tmp_path, bare, None)
    assert _prepared(tmp_path, compiled, fake) is None
    assert fake.said == [f"{fake.kernel.name}: its further modules are unavailable: no mirror"]
    assert _prepared(tmp_path, compiled, Fake(tmp_path, bare, modules)) is not None


def test_a_guest_gets_them_with_its_project(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    for name in ("core.ko", "needed.json"):
        (tmp_path / "made" / name).write_text(name)
    packed = payload.pack(payload.of_project(below(tmp_path, carry=("none",)), modules=tmp_path / "made"))
    with tarfile.open(fileobj=io.BytesIO(packed.rest)) as tar:
        assert [member.name for member in tar] == [".kernel-modules/core.ko", ".kernel-modules/needed.json"]


# -- in the guest


class Kernel:
    """Takes the place of insmod, modprobe and rmmod."""

    def __init__(self, folder: Path) -> None:
        self.loaded = folder / "modules"
        self.loaded.write_text("present 16384 0 - Live 0x0\n")
        self.commands: list[str] = []
        #: how often a module is in use when it is to be unloaded
        self.in_use = 1

    def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        program, name = Path(command[0]).name, Path(command[-1]).stem.replace("-", "_")
        self.commands.append(f"{program} {Path(command[-1]).name}")
        if name == "broken":
            return subprocess.CompletedProcess(command, 1, "", "insmod: ERROR: Unknown symbol\n")
        lines = self.loaded.read_text()
        if program == "rmmod" and self.in_use:
            self.in_use -= 1
            return subprocess.CompletedProcess(command, 1, "", "in use")
        if program == "rmmod":
            lines = "".join(line for line in lines.splitlines(True) if not line.startswith(f"{name} "))
        else:
            names = [name, "defrag"] if program == "modprobe" else [name]
            lines = "".join(f"{one} 1 0 - Live 0x0\n" for one in names) + lines
        self.loaded.write_text(lines)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    brought = tmp_path / "brought"
    brought.mkdir()
    rows = {
        "x.bpf.o": {"modules": ["base", "present", "core"], "lacking": ["gone"]},
        "y.bpf.o": {"modules": [], "lacking": ["b"]},
    }
    (brought / "needed.json").write_text(json.dumps(rows))
    for name in ("base", "core"):
        (brought / f"{name}.ko").touch()
    kernel = Kernel(tmp_path)
    monkeypatch.setattr(guest_modules, "_BROUGHT", brought)
    monkeypatch.setattr(guest_modules, "_LOADED", kernel.loaded)
    monkeypatch.setattr(subprocess, "run", kernel.run)
    return kernel


def test_an_objects_modules_are_loaded_and_unloaded(kernel: Kernel) -> None:
    """What was there before stays."""
    with guest_modules.loaded("x.bpf.o", ()):
        assert kernel.commands == ["insmod base.ko", "insmod core.ko"]
    # what uses one may be released a little later
    assert kernel.commands[2:] == ["rmmod core", "rmmod core", "rmmod base"]
    assert kernel.loaded.read_text() == "present 16384 0 - Live 0x0\n"
    assert guest_modules.lacking() == {"gone", "b"}


def test_a_declared_module_that_is_brought_is_loaded_once(kernel: Kernel) -> None:
    """However its name is written."""
    (guest_modules._BROUGHT / "dash_ed.ko").touch()
    rows = {"z.bpf.o": {"modules": ["base", "dash_ed"], "lacking": []}}
    (guest_modules._BROUGHT / "needed.json").write_text(json.dumps(rows))
    with guest_modules.loaded("z.bpf.o", ("dash-ed",)):
        assert kernel.commands == ["insmod base.ko", "insmod dash_ed.ko"]


def test_a_kernel_without_modules_has_none(kernel: Kernel) -> None:
    kernel.loaded.unlink()
    with guest_modules.loaded("y.bpf.o", ()):
        assert kernel.commands == []


def test_a_module_of_the_image_is_loaded_by_its_name(kernel: Kernel) -> None:
    with guest_modules.loaded("y.bpf.o", ("nf_conntrack", "present")):
        assert kernel.commands == ["modprobe nf_conntrack"]
    # with what modprobe has loaded for it
    assert kernel.commands[2:] == ["rmmod nf_conntrack", "rmmod defrag"]


def test_a_module_that_cannot_be_loaded_is_named(kernel: Kernel) -> None:
    """And what was loaded before it is unloaded."""
    line = r"^module broken: insmod: ERROR: Unknown symbol$"
    with pytest.raises(guest_modules.ModuleMissing, match=line), guest_modules.loaded("x.bpf.o", ("broken",)):
        raise AssertionError
    assert kernel.loaded.read_text() == "present 16384 0 - Live 0x0\n"
