"""The modules that an object's functions need: what the kernel itself has not is looked up in the guest's modules."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from kernel_matrix.guest.bpf.diagnosis import kernel_names
from kernel_matrix.shared.bpf import bpf_elf
from kernel_matrix.shared.bpf.bpf_elf import BpfFile
from kernel_matrix.shared.bpf.object_table import ObjectSettings

_MODULES = Path("/lib/modules")
#: sections that name a function of the kernel, without their suffixes
_FUNCTIONS = frozenset({"kprobe", "kretprobe", "fentry", "fexit", "fmod_ret", "fsession"})
#: sections that name a tracepoint; of a category behind a slash
_TRACEPOINTS = frozenset({"tp", "tracepoint", "raw_tp", "raw_tracepoint", "tp_btf"})
#: the category of all system calls, which are in no module
_CALLS = "syscalls"


def needed(file: BpfFile, settings: ObjectSettings) -> tuple[str, ...]:
    """Return the modules that have what an object names, and the kernel's own types have not."""
    names = dict(_named(file, settings))
    missing = kernel_names.absent(names)
    return tuple(sorted(_with({names[name] for name in missing}))) if missing else ()


def _named(file: BpfFile, settings: ObjectSettings) -> Iterator[tuple[str, str]]:
    """Yield what an object names: as the kernel's types have it, and as the symbols of a module have it."""
    for program, section in file.programs.items():
        word, _, target = section.lstrip("?").partition("/")
        word, target = word.partition(".")[0], settings.targets.get(program, target).partition("+")[0]
        if word in _FUNCTIONS and target.isidentifier():
            yield target, target
        elif word in _TRACEPOINTS and target:
            category, _, event = target.replace(":", "/").rpartition("/")
            if category != _CALLS:
                yield f"btf_trace_{event}", f"__tracepoint_{event}"
    for name in file.externs:
        if not name.startswith(("CONFIG_", "LINUX_")):
            yield name, name


def _with(symbols: Collection[str]) -> Iterator[str]:
    """Yield the modules that define one of these symbols."""
    for path in (_MODULES / os.uname().release).rglob("*.ko"):
        data = path.read_bytes()
        # reading all symbols of a module takes longer than to look for the names
        likely = {name for name in symbols if f"\0{name}\0".encode() in data}
        if likely and not likely.isdisjoint(bpf_elf.defined(data)):
            yield path.name.removesuffix(".ko").replace("-", "_")
