"""An object file's own description, read by libbpf without loading it: sections and BTF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.guest.bpf.btf import Btf
from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.bpf.steps import iterate, open_object


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """An object file that is open for reading."""

    #: each program's section by the program's name, in the file's order: ``kprobe/do_x``
    sections: Mapping[str, str]
    btf: Btf


@contextmanager
def object_file(path: Path) -> Iterator[ObjectFile]:
    """Open an object file to read it; raises StepError of stage open."""
    lib = libbpf()
    with open_object(path) as pointer:
        sections = {
            lib.bpf_program__name(program).decode(): lib.bpf_program__section_name(program).decode()
            for program in iterate("bpf_object__next_program", pointer)
        }
        yield ObjectFile(sections, Btf(lib.bpf_object__btf(pointer)))
