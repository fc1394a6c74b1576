"""x86_64. Kernel sources that are cited here are in arch/x86."""

from __future__ import annotations

import re
import struct

from kernel_matrix.arch.architecture import Architecture

#: One thread for all of a guest's processors. With one thread each (QEMU's default), a processor may still run the
#: translation of an int3 that another processor has replaced. arch/x86/kernel/alternative.c, text_poke_bp_batch(),
#: relies on that being impossible, and a guest whose tracepoints are switched on and off dies of "Oops: int3" (QEMU
#: 7.2: 15 of 20 runs of 50 attachments to sched_switch on 6.12, 0 of 20 with one thread). Several guests run at the
#: same time, so the machine's cores are used nevertheless.
_EMULATION = ("-accel", "tcg,thread=single")

#: virtme-ng's processor without the flags that promise fast `rep movsb` and `rep stosb`: QEMU executes them byte by
#: byte, and without the flags the kernel copies eight bytes at a time (arch/x86/lib/copy_page_64.S, clear_page_64.S)
_EMULATED_PROCESSOR = ("-cpu", "max,erms=off,fsrm=off")

#: unknown_nmi_panic: a silent guest gets a non-maskable interrupt, and its panic shows where it is. Not under KVM,
#: where a processor's counters may cause such an interrupt by themselves (arch/x86/kernel/nmi.c, unknown_nmi_error());
#: tsc=reliable: all processors of a guest are one thread and read one counter, the host's. Kernels before 7.x do not
#: trust it (arch/x86/kernel/tsc.c, unsynchronized_tsc()) and read the time from a device, several times a tick: 2 to
#: 5 us each instead of 0.5. A saved guest keeps that counter's rate, so `kernel_matrix.relay.accelerator.machine`
#: includes it;
#: norandmaps: every program has the same addresses each time it starts. QEMU 7.2 translates code again when it is
#: mapped elsewhere, 2300 blocks for each /bin/true instead of less than one (`info jit`), 53 ms instead of 14;
#: no_timer_check: a kernel that counts fewer than five of its ticks in 160 million cycles of the host's counter, 60 ms,
#: tries other timers and finally panics (arch/x86/kernel/apic/io_apic.c, timer_irq_works()). On a busy host, QEMU may
#: wait longer for a processor: beside four others, 5 of 12 boots of 6.12 panicked, none with this option. Under KVM,
#: kernels skip the check by themselves (arch/x86/kernel/kvm.c, kvm_guest_init())
_EMULATED_COMMAND_LINE = ("unknown_nmi_panic", "tsc=reliable", "norandmaps", "no_timer_check")

#: XEN_ELFNOTE_PHYS32_ENTRY (include/xen/interface/elfnote.h): the entry point for a PVH loader
_PVH_ENTRY = ("Xen", "18")

#: asm/unistd_64.h
_SYSCALLS = {"execve": 59, "perf_event_open": 298, "sched_setattr": 314, "execveat": 322}
#: asm/unistd_32.h
_SYSCALLS32 = {"close": 6, "execve": 11, "getpid": 20, "execveat": 358}


def _release(kernel: bytes) -> str:
    """Read a bzImage's header (Documentation/arch/x86/boot.rst): kernel_version is at 0x20e."""
    if kernel[0x202:0x206] != b"HdrS":
        raise ValueError("not a bzImage: no HdrS at 0x202")
    start = int.from_bytes(kernel[0x20E:0x210], "little") + 0x200
    text = kernel[start : start + 0x100].partition(b"\0")[0].decode("ascii", errors="replace")
    if not text:
        raise ValueError("not a bzImage: no version string")
    return text.split()[0]


def _compressed(kernel: bytes) -> bytes | None:
    """Return a bzImage's payload.

    Documentation/arch/x86/boot.rst: it starts payload_offset bytes into the protected-mode code, which follows
    setup_sects + 1 sectors.
    """
    if kernel[0x202:0x206] != b"HdrS":
        return None
    sectors = kernel[0x1F1] or 4
    offset, length = struct.unpack_from("<II", kernel, 0x248)
    start = (sectors + 1) * 512 + offset
    return kernel[start : start + length]


def _processor(cpuinfo: str) -> str:
    return next((line for line in cpuinfo.splitlines() if "model name" in line), "")


def _counter_rate(cpuinfo: str) -> str:
    """Return the TSC's rate in three digits.

    Linux derives BogoMIPS from the TSC if there is one (arch/x86/kernel/tsc.c, lpj_fine): 2 for each MHz.
    """
    match = re.search(r"^bogomips\s*:\s*([\d.]+)$", cpuinfo, re.IGNORECASE | re.MULTILINE)
    return f"{float(match[1]):.3g}" if match else ""


def _call32(number: int, ebx: int = 0, ecx: int = 0, edx: int = 0, esi: int = 0) -> bytes:
    """Return code that enters the kernel by int 0x80, which is open to 64-bit programs, too.

    The upper halves of the arguments' registers are not the call's: whoever reads them gets an address that is none.
    """

    def wide(value: int) -> bytes:
        return struct.pack("<Q", 0xDEAD_BEEF << 32 | value & 0xFFFF_FFFF)

    return b"".join(
        [
            b"\x53",  # push rbx
            b"\xb8" + struct.pack("<I", number),  # mov eax
            b"\x48\xbb" + wide(ebx),  # movabs rbx
            b"\x48\xb9" + wide(ecx),  # movabs rcx
            b"\x48\xba" + wide(edx),  # movabs rdx
            b"\x48\xbe" + wide(esi),  # movabs rsi
            b"\x31\xff",  # xor edi, edi
            b"\xcd\x80",  # int 0x80
            b"\x48\x98",  # cdqe: the result is 32 bits wide
            b"\x5b",  # pop rbx
            b"\xc3",  # ret
        ]
    )


X86_64 = Architecture(
    name="x86_64",
    debian="amd64",
    kernel="x86",
    qemu="qemu-system-x86_64",
    emulation=_EMULATION,
    emulated_processor=_EMULATED_PROCESSOR,
    emulated_command_line=_EMULATED_COMMAND_LINE,
    page=1 << 12,
    kernel_release=_release,
    compressed_kernel=_compressed,
    entry_note=_PVH_ENTRY,
    processor=_processor,
    counter_rate=_counter_rate,
    compiler=("-D__TARGET_ARCH_x86",),
    rust="x86_64-unknown-linux-gnu",
    go="amd64",
    syscall_prefix="__x64_sys_",
    syscalls=_SYSCALLS,
    syscalls32=_SYSCALLS32,
    call32=_call32,
)
