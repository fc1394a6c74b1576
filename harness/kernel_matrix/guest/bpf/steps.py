"""Load and attach in single steps, so that a refusal has one stage and one errno.

A loader opens, creates maps, loads and attaches in one go. Here each step is one libbpf call that makes
one kernel call, so that a test can make the other steps with full privileges and only this one without.
Every function raises StepError with the kernel's own errno.
"""

from __future__ import annotations

import ctypes
import enum
import os
import re
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from ctypes import c_bool
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernel_matrix.guest.bpf.library import captured_messages, libbpf
from kernel_matrix.guest.bpf.step_error import Stage, StepError
from kernel_matrix.guest.bpf.structs import MapCreateOpts, ProgLoadOpts, XdpAttachOpts, XdpQueryOpts
from kernel_matrix.shared.project import build_folder

#: linux/bpf.h, BPF_F_TOKEN_FD: a program is loaded, or a map made, with the rights of a token
TOKEN_FLAG = 1 << 16


def object_path(name: str) -> Path:
    """Return the path of a compiled object by its name, such as ``fixtures/attach``."""
    return build_folder() / f"{name}.bpf.o"


class XdpFlags(enum.IntFlag):
    """How netlink attaches a program to an interface: XDP_FLAGS_* of linux/if_link.h."""

    NONE = 0
    UPDATE_IF_NOEXIST = 1
    GENERIC = 2
    NATIVE = 4
    OFFLOAD = 8
    REPLACE = 16

    @property
    def words(self) -> str:
        """Its names as they are in a message; empty for none."""
        return str(self.name or "").lower().replace("|", ", ") if self else ""


def checked(result: int, stage: Stage, what: str) -> int:
    """Return libbpf's result; raises StepError when it is an error."""
    if result < 0:
        raise StepError(-result, stage, what)
    return int(result)


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded program of an open object; usable in a forked child as well."""

    name: str
    pointer: int

    @property
    def fd(self) -> int:
        """Its file descriptor."""
        return checked(libbpf().bpf_program__fd(self.pointer), "load", self.name)


@dataclass(frozen=True, slots=True)
class Code:
    """The arguments of BPF_PROG_LOAD that a loaded program has already, read from libbpf once.

    libbpf has resolved its relocations in place, map fds included, so loading it again creates neither maps nor BTF
    and needs only the privileges for loading a program.
    """

    name: str
    kind: int
    #: where libbpf keeps the instructions, for as long as the object is open, and how many there are
    instructions: int
    count: int

    @classmethod
    def of(cls, program: Program) -> Code:
        """Read those of a loaded program."""
        lib, pointer = libbpf(), program.pointer
        return cls(
            program.name,
            lib.bpf_program__type(pointer),
            lib.bpf_program__insns(pointer),
            lib.bpf_program__insn_cnt(pointer),
        )


@dataclass(frozen=True, slots=True)
class MapSpec:
    """The arguments of BPF_MAP_CREATE; sizes in bytes."""

    #: libbpf's name of the map type, such as ``percpu_array``
    type: str
    key: int
    value: int
    entries: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded object: its programs and the fds of its maps by name."""

    programs: dict[str, Program]
    maps: dict[str, int]
    specs: tuple[MapSpec, ...]


def iterate(next_function: str, pointer: int) -> Iterator[int]:
    """Iterate over libbpf's linked programs or maps."""
    member: int | None = None
    while member := getattr(libbpf(), next_function)(pointer, member):
        yield member


@contextmanager
def open_object(path: Path) -> Generator[int]:
    """Open an object file for the block; yield libbpf's pointer. Raises StepError with libbpf's messages."""
    lib = libbpf()
    with captured_messages() as messages:
        pointer = lib.bpf_object__open_file(os.fsencode(path), None)
        if not pointer:
            raise StepError(ctypes.get_errno(), "open", path.name, messages())
    try:
        yield pointer
    finally:
        lib.bpf_object__close(pointer)


def kinds(path: Path) -> dict[str, str]:
    """Open an object; return the type of each program by the program's name, as libbpf names it. Raises StepError."""
    return _of_programs(path, kind_of)


def destinations(path: Path) -> dict[str, str]:
    """Open an object; return the attach target of each program's section by the program's name. Raises StepError."""
    return _of_programs(path, where)


def _of_programs(path: Path, read: Callable[[int], str]) -> dict[str, str]:
    with open_object(path) as obj:
        return {libbpf().bpf_program__name(p).decode(): read(p) for p in iterate("bpf_object__next_program", obj)}


@contextmanager
def loaded(path: Path, *names: str, prepare: Callable[[str, int], None] | None = None) -> Generator[Loaded]:
    """Open an object, load the named programs (all, when none is named) and every map; close it at the end.

    ``prepare`` is called with each program's name and libbpf's pointer before anything is loaded.
    """
    lib = libbpf()
    with open_object(path) as obj:
        programs = {lib.bpf_program__name(p).decode(): p for p in iterate("bpf_object__next_program", obj)}
        if missing := set(names) - set(programs):
            raise KeyError(f"{path.name} has no program {', '.join(sorted(missing))}")
        for name, pointer in programs.items():
            checked(lib.bpf_program__set_autoload(pointer, not names or name in names), "open", name)
            if prepare is not None:
                prepare(name, pointer)
        with captured_messages() as messages:
            result = lib.bpf_object__load(obj)
            if result < 0:
                raise StepError(
                    -result,
                    "load",
                    " ".join([path.name, *names]),
                    messages(),
                    _refused_kind(programs, names, messages()),
                )
        selected = {n: Program(n, p) for n, p in programs.items() if not names or n in names}
        maps = list(iterate("bpf_object__next_map", obj))
        fds = {lib.bpf_map__name(m).decode(): checked(lib.bpf_map__fd(m), "open", path.name) for m in maps}
        yield Loaded(selected, fds, tuple(spec_of(m) for m in maps))


def _refused_kind(programs: Mapping[str, int], names: Collection[str], log: str) -> str:
    """Return the type of the program that libbpf's messages name, or of the only one to load."""
    refused = re.search(r"prog '([^']+)': BPF program load failed", log)
    if refused:
        names = [refused[1]]
    return kind_of(programs[next(iter(names))]) if len(names) == 1 else ""


def kind_of(pointer: int) -> str:
    """Return libbpf's name of a program's type."""
    return _kind_name(libbpf().bpf_program__type(pointer))


@cache
def _kind_name(number: int) -> str:
    return str(libbpf().libbpf_bpf_prog_type_str(number).decode())


def _kind_of_fd(fd: int) -> str:
    """Return libbpf's name of the type of the program behind a file descriptor, empty when it is unavailable.

    Until 5.14 a process that has changed its uid cannot read its own fdinfo (7bc3fa0172a4, "procfs: allow reading
    fdinfo with PTRACE_MODE_READ"). Then the error to report is that of the step, not this one.
    """
    try:
        kind = re.search(r"prog_type:\t(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text())
    except (FileNotFoundError, PermissionError):  # the fd is not open, or its fdinfo is not readable
        return ""
    return str(libbpf().libbpf_bpf_prog_type_str(int(kind[1])).decode()) if kind else ""


def where(pointer: int) -> str:
    """Return the attach target of a program's section: ``kprobe do_x``, ``tracepoint a:b``, or the program's name."""
    kind, _, target = str(libbpf().bpf_program__section_name(pointer).decode()).partition("/")
    if kind in {"tp", "tracepoint"}:
        return f"tracepoint {target.replace('/', ':')}"
    if kind in {"kprobe", "ksyscall", "kretprobe"}:
        return f"kprobe {target}"
    return str(libbpf().bpf_program__name(pointer).decode())


def spec_of(map_pointer: int) -> MapSpec:
    """Return what a map of an open object is created from; the argument is libbpf's pointer."""
    lib = libbpf()
    return MapSpec(
        lib.libbpf_bpf_map_type_str(lib.bpf_map__type(map_pointer)).decode(),
        lib.bpf_map__key_size(map_pointer),
        lib.bpf_map__value_size(map_pointer),
        lib.bpf_map__max_entries(map_pointer),
    )


@cache
def type_numbers(kind: str) -> dict[str, int]:
    """Return the kernel's numbers of the ``attach`` types or ``map`` types by libbpf's names."""
    name_of = getattr(libbpf(), f"libbpf_bpf_{kind}_type_str")
    numbers: dict[str, int] = {}
    while name := name_of(len(numbers)):
        numbers[name.decode()] = len(numbers)
    return numbers


def create_map(spec: MapSpec, *, flags: int = 0, token: int | None = None) -> int:
    """Make the one BPF_MAP_CREATE call; return the fd."""
    return create_map_of_type(type_numbers("map")[spec.type], spec, flags=flags, token=token)


def create_map_of_type(number: int, spec: MapSpec, *, flags: int = 0, token: int | None = None) -> int:
    """Make the one BPF_MAP_CREATE call for a type by its number, even if the kernel has no such type."""
    opts = None
    if flags or token is not None:
        rights = 0 if token is None else TOKEN_FLAG
        opts = MapCreateOpts(sz=ctypes.sizeof(MapCreateOpts), map_flags=flags | rights, token_fd=token or 0)
    result = libbpf().bpf_map_create(
        number, b"step", spec.key, spec.value, spec.entries, None if opts is None else ctypes.byref(opts)
    )
    if result < 0:
        raise StepError(-result, "map_create", spec.type, token=token is not None)
    return int(result)


def lookup(fd: int, spec: MapSpec, *, key: int) -> bytes:
    """Make the one BPF_MAP_LOOKUP_ELEM call; return the value's bytes."""
    value = ctypes.create_string_buffer(spec.value)
    key_bytes = key.to_bytes(spec.key, "little")
    checked(libbpf().bpf_map_lookup_elem(fd, key_bytes, value), "lookup", spec.type)
    return value.raw


def pin(fd: int, path: Path) -> None:
    """Make the one BPF_OBJ_PIN call."""
    checked(libbpf().bpf_obj_pin(fd, os.fsencode(path)), "pin", str(path))


def pin_program(program: Program, path: Path) -> None:
    """Pin a program as a loader does: libbpf checks the file system first."""
    with captured_messages() as messages:
        result = libbpf().bpf_program__pin(program.pointer, os.fsencode(path))
        if result < 0:
            raise StepError(-result, "pin", str(path), messages())


def open_pin(path: Path) -> int:
    """Make the one BPF_OBJ_GET call; return the fd."""
    return checked(libbpf().bpf_obj_get(os.fsencode(path)), "open", str(path))


def set_sysctl(name: str, value: int) -> None:
    """Write a kernel.* sysctl."""
    try:
        Path("/proc/sys/kernel", name).write_text(str(value))
    except OSError as error:
        raise StepError(error.errno or 0, "sysctl", f"{name}={value}") from error


def create_token(bpffs: int) -> int:
    """Make the one BPF_TOKEN_CREATE call on a bpffs mount's fd; return the token's fd."""
    return checked(libbpf().bpf_token_create(bpffs, None), "token", "BPF token")


def load_again(program: Program, *, expected_attach_type: int = 0, target: int = 0, token: int | None = None) -> int:
    """Make the one BPF_PROG_LOAD call for a program that is loaded already; return the new fd."""
    return load_code(Code.of(program), expected_attach_type=expected_attach_type, target=target, token=token)


def load_code(code: Code, *, expected_attach_type: int = 0, target: int = 0, token: int | None = None) -> int:
    """Make the one BPF_PROG_LOAD call; return the fd.

    ``target`` is the type id, in the kernel's BTF, of the function that fentry or LSM attaches to.
    """
    opts = ProgLoadOpts(
        sz=ctypes.sizeof(ProgLoadOpts),
        expected_attach_type=expected_attach_type,
        attach_btf_id=target,
        prog_flags=0 if token is None else TOKEN_FLAG,
        token_fd=token or 0,
    )
    result = libbpf().bpf_prog_load(code.kind, b"step", b"GPL", code.instructions, code.count, ctypes.byref(opts))
    if result < 0:
        raise StepError(-result, "load", code.name, kind=_kind_name(code.kind), token=token is not None)
    return int(result)


@contextmanager
def _link(program: Program, what: str, attach: Callable[[], int | None]) -> Generator[None]:
    with captured_messages() as messages:
        pointer = attach()
        if not pointer:
            raise StepError(ctypes.get_errno(), "attach", what, messages(), kind_of(program.pointer))
    try:
        yield
    finally:
        destroy_link(pointer, what)


def destroy_link(pointer: int, what: str) -> None:
    """Destroy a link of libbpf, which detaches its program; raises StepError."""
    checked(libbpf().bpf_link__destroy(pointer), "detach", what)


@contextmanager
def by_section(program: Program) -> Generator[None]:
    """Attach to the target that the program's section names."""
    with _link(program, where(program.pointer), lambda: libbpf().bpf_program__attach(program.pointer)):
        yield


@contextmanager
def xdp_link(program: Program, ifindex: int) -> Generator[None]:
    """Attach to an interface by a bpf_link (BPF_LINK_CREATE)."""
    with _link(program, f"XDP link on {ifindex}", lambda: libbpf().bpf_program__attach_xdp(program.pointer, ifindex)):
        yield


@contextmanager
def tcx_link(program: Program, ifindex: int) -> Generator[None]:
    """Attach to an interface by a tcx link."""
    with _link(program, f"tcx on {ifindex}", lambda: libbpf().bpf_program__attach_tcx(program.pointer, ifindex, None)):
        yield


@contextmanager
def kprobe(program: Program, symbol: str) -> Generator[None]:
    """Attach at a kernel function's entry, by perf_event_open."""
    step = libbpf().bpf_program__attach_kprobe
    with _link(program, f"kprobe {symbol}", lambda: step(program.pointer, c_bool(False), symbol.encode())):  # noqa: FBT003
        yield


@contextmanager
def tracepoint(program: Program, category: str, name: str) -> Generator[None]:
    """Attach to a tracepoint: libbpf reads its number from tracefs, then calls perf_event_open."""
    step = libbpf().bpf_program__attach_tracepoint
    with _link(
        program, f"tracepoint {category}:{name}", lambda: step(program.pointer, category.encode(), name.encode())
    ):
        yield


def xdp_step(ifindex: int, flags: XdpFlags) -> str:
    """Return what `StepError.what` says of attaching to an interface, or detaching."""
    return ", ".join(filter(None, (f"XDP on {ifindex}", flags.words)))


def xdp_attach(fd: int, ifindex: int, flags: XdpFlags = XdpFlags.NONE, *, replacing: int | None = None) -> None:
    """Attach a program to an interface by netlink; `replacing` is the fd of the program expected there."""
    opts = None if replacing is None else ctypes.byref(XdpAttachOpts(ctypes.sizeof(XdpAttachOpts), replacing))
    with captured_messages() as messages:
        result = libbpf().bpf_xdp_attach(ifindex, fd, flags, opts)
        if result < 0:
            raise StepError(-result, "attach", xdp_step(ifindex, flags), messages(), _kind_of_fd(fd))


def xdp_detach(ifindex: int, flags: XdpFlags = XdpFlags.NONE) -> None:
    """Detach any program from an interface by netlink."""
    checked(libbpf().bpf_xdp_detach(ifindex, flags, None), "detach", xdp_step(ifindex, flags))


def xdp_id(ifindex: int, mode: XdpFlags = XdpFlags.NONE) -> int:
    """Return the id of the interface's program in this mode, or in any mode; 0 when there is none."""
    result = XdpQueryOpts(sz=ctypes.sizeof(XdpQueryOpts))
    checked(libbpf().bpf_xdp_query(ifindex, 0, ctypes.byref(result)), "query", f"XDP on {ifindex}")
    ids = {XdpFlags.NONE: result.prog_id, XdpFlags.NATIVE: result.drv_prog_id, XdpFlags.GENERIC: result.skb_prog_id}
    return int(ids[mode])
