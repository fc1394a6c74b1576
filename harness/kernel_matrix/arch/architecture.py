"""The properties of an architecture that the engine uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture."""

    #: the machine's name in uname(2)
    name: str
    #: Debian's name for it, of packages and of the default kernel's flavour
    debian: str
    #: its folder below the kernel's arch
    kernel: str

    #: QEMU's program
    qemu: str
    #: QEMU's options for every emulated guest with more than one processor
    emulation: tuple[str, ...]
    #: QEMU's options for a faster emulated guest
    emulated_processor: tuple[str, ...]
    #: added to an emulated guest's kernel command line
    emulated_command_line: tuple[str, ...]
    #: size of a guest's page in bytes
    page: int

    #: the content of a kernel's file that is not ELF -> its release; raises ValueError for any other file
    kernel_release: Callable[[bytes], str]
    #: the content of a kernel's file -> the compressed ELF file in it; None when there is none
    compressed_kernel: Callable[[bytes], bytes | None]
    #: name and type of the note by which QEMU can start an uncompressed kernel
    entry_note: tuple[str, str]

    #: the content of /proc/cpuinfo -> the processor's name
    processor: Callable[[str], str]
    #: the content of /proc/cpuinfo -> the rate of the counter that emulated guests read; empty when it is missing
    counter_rate: Callable[[str], str]

    #: compiler flags for BPF programs that read registers of this architecture
    compiler: tuple[str, ...]
    #: Rust's target for programs in a guest, and Go's name of the architecture
    rust: str
    go: str
    #: the start of the names of the kernel's system call functions
    syscall_prefix: str
    #: the system calls that the engine makes itself -> their numbers
    syscalls: Mapping[str, int]
    #: the same for 32-bit programs
    syscalls32: Mapping[str, int]
    #: a 32-bit system call's number and up to four arguments -> code of a 64-bit function that makes the call and
    #: returns its result; None when 64-bit programs cannot make it
    call32: Callable[..., bytes] | None
