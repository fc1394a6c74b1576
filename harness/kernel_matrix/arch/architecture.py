"""What the engine asks of an architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture: all that the engine must know of it."""

    #: as uname(2) has it
    name: str
    #: as Debian has it: of packages, and the flavour of its usual kernel
    debian: str

    #: QEMU's program
    qemu: str
    #: of QEMU, for every emulated guest that has more than one processor
    emulation: tuple[str, ...]
    #: of QEMU, for a quicker emulated guest
    emulated_processor: tuple[str, ...]
    #: added to an emulated guest's kernel command line
    emulated_command_line: tuple[str, ...]
    #: bytes of a guest's page
    page: int

    #: the content of a kernel's file, which is no ELF file -> its release; raises ValueError for what is no kernel
    kernel_release: Callable[[bytes], str]
    #: the content of a kernel's file -> the compressed ELF file in it; None where there is none
    compressed_kernel: Callable[[bytes], bytes | None]
    #: name and type of the note by which QEMU can start an uncompressed kernel
    entry_note: tuple[str, str]

    #: the content of /proc/cpuinfo -> what names the processor
    processor: Callable[[str], str]
    #: the content of /proc/cpuinfo -> how fast the counter runs that emulated guests read; empty when it is not said
    counter_rate: Callable[[str], str]

    #: the compiler's, for BPF programs that read registers of this architecture
    compiler: tuple[str, ...]
    #: how the kernel's functions of system calls begin
    syscall_prefix: str
    #: system call -> its number, of those that the engine makes itself
    syscalls: Mapping[str, int]
    #: the same of 32-bit programs
    syscalls32: Mapping[str, int]
    #: a 32-bit program's system call and up to four arguments -> code of a 64-bit function that makes it and returns
    #: its result; None where a 64-bit program cannot
    call32: Callable[..., bytes] | None
