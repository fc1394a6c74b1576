"""What differs between architectures is in one room, and the engine takes it from there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kernel_matrix
from kernel_matrix import arch
from kernel_matrix.arch.x86_64 import X86_64

ENGINE = Path(kernel_matrix.__file__).resolve().parent
#: who may say x86 outside the room, and why
ALLOWED = {
    "defaults": "data: the kernels that Debian has of this architecture",
    "dev/packages.toml": "data: how distributions name the package that has QEMU",
}
_SAYS = re.compile(r"x86|amd64|x64|i386|int 0x80|\btsc\b|\b[er][abcd]x\b", re.IGNORECASE)


def test_no_other_module_of_the_engine_names_an_architecture() -> None:
    files = {}
    for path in sorted(ENGINE.rglob("*")):
        name = str(path.relative_to(ENGINE))
        if path.suffix == ".pyc" or not path.is_file() or name.startswith(("arch/", *ALLOWED)):
            continue
        if words := sorted({word.lower() for word in _SAYS.findall(path.read_text())}):
            files[name] = words
    assert files == {}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_excused_is_there_and_needs_it(name: str) -> None:
    path = ENGINE / name
    files = [path] if path.is_file() else list(path.iterdir())
    assert any(_SAYS.search(file.read_text()) for file in files)


def test_the_guests_are_of_this_machines_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arch.CURRENT is (arch.of_host() or X86_64)
    monkeypatch.setattr(arch, "_KNOWN", {})
    assert arch.of_host() is None


#: runs before anything else of the engine is imported
_OTHER = """
from dataclasses import replace
from pathlib import Path
from kernel_matrix import arch
arch.CURRENT = other = replace(
    arch.CURRENT,
    name="other",
    debian="debian-other",
    qemu="qemu-other",
    emulation=("-accel", "other"),
    emulated_processor=("-cpu", "processor-other"),
    emulated_command_line=("word-other",),
    compiler=("-D__TARGET_ARCH_other",),
    kernel_release=lambda data: f"6.1-other{len(data)}",
    compressed_kernel=lambda data: data,
    entry_note=("Other", "1"),
    counter_rate=lambda cpuinfo: "rate-other",
    page=1 << 14,
    syscall_prefix="__other_sys_",
    syscalls={},
    syscalls32={},
    call32=None,
)
arch._KNOWN.clear()
"""
_ASKED = {
    "the guest's command": """
from kernel_matrix.vm.boot_spec import *
spec = BootSpec(Path("/k/vmlinuz"), Path("/k/modules"), Path("/r"), Accelerator.TCG)
print(*vng_command(spec, Path("vng"), sockets=Sockets.below(Path("/t")), pidfile=Path("/t/pid")))
""",
    "the compiler's flags": "from kernel_matrix.objects import build; print(*build.FLAGS)",
    "the archive": """
from kernel_matrix.images.packages import archive
from kernel_matrix.images.providers.debian import Debian
print(*archive.Suite("trixie")._options(Path("/c")), Debian("trixie", "6.1").flavour)
""",
    "the kernel's file": """
import tempfile
from kernel_matrix.images import vmlinux
from kernel_matrix.images.packages import unpack
path = Path(tempfile.mkdtemp()) / "kernel"
path.write_bytes(bytes(7))
print(unpack.release_of(path), vmlinux.of(bytes(7)))
""",
    "QEMU": """
from kernel_matrix.relay import accelerator
from kernel_matrix.shared.errors import ToolMissing
try:
    accelerator._qemu_version()
except ToolMissing as error:
    print(error)
""",
    "the machine": """
from kernel_matrix.relay import accelerator
from kernel_matrix.vm.boot_spec import Accelerator
accelerator._qemu_version = lambda: ""
print(accelerator.machine(Accelerator.TCG))
""",
    "a page": "from kernel_matrix.relay.saved import memory_files; print({1 << 14: 'other'}[memory_files._PAGE])",
    "names of system calls": """
from kernel_matrix.guest.bpf.diagnosis import machine
machine._symbols = lambda: "\\n0 t a_sys_x\\n0 T __other_sys_x\\n0 t __pfx___other_sys_x\\n"
print(*machine._similar_symbols("sys_x")[:1])
""",
    "the batch class": """
from kernel_matrix.vm import process_guard
print("other" if process_guard._guard(batch=True) == process_guard._guard(batch=False) else "a number of its own")
""",
    "32-bit calls": """
from kernel_matrix.guest.probes import features
print("other", features.PROBES["ia32_emulation"]())
""",
}


@pytest.mark.parametrize("about", _ASKED)
def test_another_architecture_needs_no_other_module(about: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OTHER + _ASKED[about]], capture_output=True, text=True, check=False, cwd=ENGINE.parent
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "other" in done.stdout
    assert not _SAYS.search(done.stdout)
    options = X86_64.emulation + X86_64.emulated_processor + X86_64.emulated_command_line + X86_64.compiler
    assert not [word for word in options if not word.startswith(("-a", "-c")) and word in done.stdout]


@pytest.mark.parametrize(
    ("cpuinfo", "rate"),
    [
        ("processor\t: 0\nmodel name\t: X\nbogomips\t: 4890.80\nflags\t\t: tsc\n", "4.89e+03"),
        # another boot of the same machine measures a little differently
        ("bogomips\t: 4890.14\n", "4.89e+03"),
        ("bogomips\t: 5988.00\n", "5.99e+03"),
        ("# processors    : 2\nbogomips per cpu: 3033.00\n", ""),
        ("", ""),
    ],
)
def test_the_counters_rate_is_half_of_bogomips_in_three_digits(cpuinfo: str, rate: str) -> None:
    assert X86_64.counter_rate(cpuinfo) == rate


def test_a_32_bit_call_is_code_that_keeps_the_callers_registers() -> None:
    """Assembled by hand: rbx belongs to the caller (System V ABI), and the result is sign-extended.

    The upper halves of the arguments' registers hold something that is none of the call's.
    """
    assert X86_64.call32 is not None
    zeros = "48b9 00000000efbeadde 48ba 00000000efbeadde 48be 00000000efbeadde 31ff cd80 4898 5b c3"
    code = f"53 b814000000 48bb 00000000efbeadde {zeros}"
    assert X86_64.call32(20) == bytes.fromhex(code)
    assert X86_64.call32(11, -100, 0x80001000) == bytes.fromhex(
        "53 b80b000000 48bb 9cffffffefbeadde 48b9 00100080efbeadde" + zeros.partition("efbeadde")[2]
    )
