"""Compile a C source with bcc: the instructions of each program, as a value that any process can load.

bcc finds programs in its main file only, and rewrites that file only. Sources are written for libbpf, so the main file
is written here (`main_file`), and `loaders/bcc_headers` stands in for libbpf's headers.

bcc makes the maps when it compiles, and writes their descriptors into the instructions. These maps are closed with
bcc's module; in the value, instructions have the maps' indexes, and whoever loads them makes maps of his own.

This file and what it includes decide what is compiled: they are part of the name under which the host keeps the value
(`kernel_matrix.shared.bpf.compiled`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kernel_matrix.guest.bpf.library import captured_messages, libbpf
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import MapSpec
from kernel_matrix.guest.system.upkeep.alive import working
from kernel_matrix.guest.system.upkeep.kernel_headers import kernel_headers
from kernel_matrix.shared.bpf.compiled import Compiled, with_numbers

HEADERS = Path(__file__).parent.parent / "loaders" / "bcc_headers"
#: where bcc searches for the kernel's headers instead of in /lib/modules/RELEASE
_HEADERS_VARIABLE = "BCC_KERNEL_SOURCE"
#: -DBCC: a source that needs something else from bcc asks for this; the sources define some of the kernel's constants
#: again, and SEC() puts attributes on maps that clang expects on functions
_FLAGS = ("-DBCC", "-Wno-macro-redefined", "-Wno-ignored-attributes", "-fms-extensions", "-Wno-microsoft-anon-tag")
#: what bcc writes when the kernel refuses a map (bpf_module.cc, create_maps())
_MAP_REFUSED = re.compile(r"could not open bpf map: (?P<map>.*), error: (?P<error>.*)")
#: seconds in which bcc has compiled, or hangs: it takes 150 for the network monitor's 36 programs on an emulated
#: processor, 320 where another guest has half of it
_LONGEST = 1200.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _name(source: str) -> str:
    return f"{source}__source"


def main_file(source: Path, programs: list[str], maps: dict[str, MapSpec]) -> str:
    """Return the text of bcc's main file.

    It includes the source, with every program and map under another name. Then it has a map of bcc's for each map, and
    for each program one that calls the source's. bcc numbers the maps of a file from -1 downwards and replaces the
    number in instructions by the map's descriptor; MAP_NUMBER tells the source's helper calls which map they mean.
    """
    names = [*programs, *maps]
    numbers = ", ".join(f"typeof({_name(name)}): {-number}" for number, name in enumerate(maps, 1))
    tables = {name: _table(name, spec) for name, spec in maps.items()}
    return "\n".join(
        [
            *(f"#define {name} {_name(name)}" for name in names),
            f"#define MAP_NUMBER(map) _Generic(*(map), {numbers})",
            f'#include "{source}"',
            *(f"#undef {name}" for name in names),
            *tables.values(),
            *(f"int {name}(void *ctx) {{ return {_name(name)}(ctx); }}" for name in programs),
            "",
        ]
    )


def _table(name: str, spec: MapSpec) -> str:
    if spec.type == "ringbuf":
        return f"BPF_RINGBUF_OUTPUT({name}, {spec.entries // _PAGE});"
    key, value = (f"typeof(*{_name(name)}.{member})" for member in ("key", "value"))
    return f'BPF_TABLE("{spec.type}", {key}, {value}, {name}, {spec.entries});'


def library() -> Any:  # noqa: ANN401 - bcc has no types
    """Return bcc's Python module; imported here because it loads clang and LLVM."""
    import bcc

    return bcc


def compiled(
    source: Path, programs: Sequence[str], maps: Mapping[str, MapSpec], *, name: str, compiler: str, key: str
) -> Compiled:
    """Compile a source that has these programs and maps.

    Raises StepError: ``open`` with the compiler's messages and no errno, ``map_create`` with the kernel's.
    """
    began = time.monotonic()
    with working(_LONGEST):
        bpf = _module(source, main_file(source, list(programs), dict(maps)), name)
    seconds = time.monotonic() - began
    try:
        lib, module = library().lib, bpf.module
        numbers = {int(lib.bpf_table_fd(module, table.encode())): index for index, table in enumerate(maps)}
        return Compiled(
            compiler=compiler,
            key=key,
            name=name,
            loader="bcc",
            seconds=round(seconds, 1),
            license=lib.bpf_module_license(module).decode(),
            version=int(lib.bpf_module_kern_version(module)),
            maps={table: _sizes(lib, module, table, spec) for table, spec in maps.items()},
            programs={program: with_numbers(_code(lib, module, program), numbers) for program in programs},
        )
    finally:
        bpf.cleanup()


def _module(source: Path, main: str, name: str) -> Any:  # noqa: ANN401 - bcc has no types
    flags = [*_FLAGS, *(f"-I{folder}" for folder in (HEADERS, source.parent))]
    try:
        os.environ[_HEADERS_VARIABLE] = str(kernel_headers())
    except OSError as error:
        raise StepError(error.errno or 0, "open", f"{name}: {error.strerror}") from error
    bcc = library()
    # bcc turns libbpf's messages off, for the whole process (bcc_btf.cc)
    printer = libbpf().libbpf_set_print(None)
    try:
        with captured_messages() as messages:
            try:
                return bcc.BPF(text=main.encode(), cflags=flags)
            except Exception as error:  # bcc raises no other class
                raise refused(name, messages()) from error
    finally:
        libbpf().libbpf_set_print(printer)


def _sizes(lib: Any, module: object, table: str, spec: MapSpec) -> tuple[int, int]:  # noqa: ANN401 - bcc has no types
    """Return the sizes of a map's key and value as bcc has compiled them; it declares some of ring buffers, too."""
    if spec.type == "ringbuf":
        return spec.key, spec.value
    number = lib.bpf_table_id(module, table.encode())
    return lib.bpf_table_key_size_id(module, number), lib.bpf_table_leaf_size_id(module, number)


def _code(lib: Any, module: object, program: str) -> bytes:  # noqa: ANN401 - bcc has no types
    start = lib.bpf_function_start(module, program.encode())
    return ctypes.string_at(start, lib.bpf_function_size(module, program.encode()))


def refused(name: str, messages: str) -> StepError:
    """Return the error of a compilation: bcc makes the maps at its end."""
    if match := _MAP_REFUSED.search(messages):
        numbers = [number for number in errno.errorcode if os.strerror(number) == match["error"]]
        return StepError(next(iter(numbers), 0), "map_create", match["map"], messages)
    # the compiler has no errno
    return StepError(0, "open", name, messages)
