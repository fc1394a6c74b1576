"""Loading and attaching in single steps, so that a refusal has one stage and one errno.

A loader opens, creates maps, loads and attaches in one go. Here each step is one libbpf call that makes
one kernel call, so that a test can make the other steps with full privileges and only this one without.
Every function raises StepError with the kernel's own errno.
"""

from __future__ import annotations

import ctypes
import enum
import os
import re
import resource
import struct
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path

from harness.guest.refusal import Stage

#: enum libbpf_errno of libbpf's libbpf.h, which begins at 4000
LIBBPF_ERRORS = {
    4000 + number: f"LIBBPF_ERRNO__{name}"
    for number, name in enumerate(
        "LIBELF FORMAT KVERSION ENDIAN INTERNAL RELOC LOAD VERIFY PROG2BIG KVER PROGTYPE WRNGPID INVSEQ NLPARSE".split()  # noqa: SIM905
    )
}

#: where the compiled objects are; the project has the same layout in a guest as on the host
_BUILD = Path(__file__).parents[2] / "build"


def object_path(name: str) -> Path:
    """Return the path of a compiled object by its name, such as ``fixtures/attach``."""
    return _BUILD / f"{name}.bpf.o"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who made a step: what of this process decides whether it may."""

    uid: int
    #: effective capabilities, a bit each by number
    effective: int
    #: RLIMIT_MEMLOCK in bytes, None: without limit
    memlock: int | None

    @classmethod
    def this_process(cls) -> Asker:
        """Ask the kernel about this process (capget(2), version 3)."""
        data = (c_uint32 * 6)()
        ctypes.CDLL(None).capget(struct.pack("=Ii", 0x20080522, 0), data)
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        return cls(os.geteuid(), data[0] | data[3] << 32, None if limit == resource.RLIM_INFINITY else limit)


class StepError(OSError):
    """A step that failed: `errno` is the kernel's (or libbpf's own, from 4000 on), `stage` says which step."""

    def __init__(self, number: int, stage: Stage, what: str, log: str = "", kind: str = "") -> None:
        super().__init__(number, f"{what}: {strerror(number)}")
        self.stage: Stage = stage
        #: what was to be done, such as ``kprobe sys_execve``
        self.what = what
        #: what libbpf said while it was done, the verifier's log included; empty for a step that has none
        self.log = log
        #: libbpf's name of the program's type, empty where none takes part or it is not known
        self.kind = kind
        #: who was refused; it comes back from a child with other privileges
        self.asker = Asker.this_process()

    def __reduce__(self) -> tuple[type[StepError], tuple[int, Stage, str, str, str], dict[str, Asker]]:
        assert self.errno is not None
        return StepError, (self.errno, self.stage, self.what, self.log, self.kind), {"asker": self.asker}


def strerror(number: int) -> str:
    """Say what an errno means, the kernel's or one of libbpf's own."""
    if number not in LIBBPF_ERRORS:
        return os.strerror(number)
    text = ctypes.create_string_buffer(128)
    libbpf().libbpf_strerror(number, text, len(text))
    return text.value.decode()


class XdpFlags(enum.IntFlag):
    """How a program is put onto an interface by netlink: XDP_FLAGS_* of linux/if_link.h."""

    NONE = 0
    UPDATE_IF_NOEXIST = 1
    GENERIC = 2
    NATIVE = 4
    OFFLOAD = 8
    REPLACE = 16


class _XdpAttachOpts(ctypes.Structure):
    """struct bpf_xdp_attach_opts of libbpf's bpf.h."""

    _fields_ = (("sz", c_size_t), ("old_prog_fd", c_int))


class _XdpQueryOpts(ctypes.Structure):
    """struct bpf_xdp_query_opts of libbpf's bpf.h, up to the attach mode.

    Without the newer fields libbpf does not ask for the generic netlink family `netdev`, for which a
    kernel that has none runs modprobe: a second for each query.
    """

    _fields_ = (
        ("sz", c_size_t),
        ("prog_id", c_uint32),
        ("drv_prog_id", c_uint32),
        ("hw_prog_id", c_uint32),
        ("skb_prog_id", c_uint32),
        ("attach_mode", c_uint8),
    )


def _library() -> ctypes.CDLL:
    """Load libbpf and declare what is used of it: pointers are returned whole, errno is kept."""
    lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    pointer_results = {
        "bpf_object__open_file": [c_char_p, c_void_p],
        "bpf_object__next_program": [c_void_p, c_void_p],
        "bpf_object__next_map": [c_void_p, c_void_p],
        "bpf_program__insns": [c_void_p],
        "bpf_program__attach": [c_void_p],
        "bpf_program__attach_xdp": [c_void_p, c_int],
        "bpf_program__attach_tcx": [c_void_p, c_int, c_void_p],
        "bpf_program__attach_kprobe": [c_void_p, c_bool, c_char_p],
        "bpf_program__attach_tracepoint": [c_void_p, c_char_p, c_char_p],
    }
    int_results = {
        "bpf_object__load": [c_void_p],
        "bpf_object__close": [c_void_p],
        "bpf_program__set_autoload": [c_void_p, c_bool],
        "bpf_program__fd": [c_void_p],
        "bpf_program__type": [c_void_p],
        "bpf_map__fd": [c_void_p],
        "bpf_map__type": [c_void_p],
        "bpf_map__key_size": [c_void_p],
        "bpf_map__value_size": [c_void_p],
        "bpf_map__max_entries": [c_void_p],
        "bpf_map_create": [c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p],
        "bpf_map_lookup_elem": [c_int, c_void_p, c_void_p],
        "bpf_prog_load": [c_int, c_char_p, c_char_p, c_void_p, c_size_t, c_void_p],
        "bpf_link__destroy": [c_void_p],
        "libbpf_strerror": [c_int, c_char_p, c_size_t],
        "bpf_obj_pin": [c_int, c_char_p],
        "bpf_obj_get": [c_char_p],
        "bpf_program__pin": [c_void_p, c_char_p],
        "bpf_token_create": [c_int, c_void_p],
        "bpf_xdp_attach": [c_int, c_int, c_uint32, c_void_p],
        "bpf_xdp_detach": [c_int, c_uint32, c_void_p],
        "bpf_xdp_query": [c_int, c_int, POINTER(_XdpQueryOpts)],
    }
    for names, result in ((pointer_results, c_void_p), (int_results, c_int)):
        for name, arguments in names.items():
            # a machine's libbpf may be too old for some: they are an error when they are used
            function = getattr(lib, name, None)
            if function is None:
                continue
            function.argtypes, function.restype = arguments, result
    for name in (
        *("bpf_program__name", "bpf_program__section_name", "bpf_map__name"),
        *("libbpf_bpf_map_type_str", "libbpf_bpf_prog_type_str"),
    ):
        getattr(lib, name).argtypes = [c_int if name.endswith("_str") else c_void_p]
        getattr(lib, name).restype = c_char_p
    lib.bpf_program__insn_cnt.argtypes, lib.bpf_program__insn_cnt.restype = [c_void_p], c_size_t
    # an expected refusal is no news: what libbpf says is kept for the StepError, not printed
    lib.libbpf_set_print(_printer)
    return lib


#: libbpf's latest lines, with the verifier's log
_messages: deque[str] = deque(maxlen=256)

#: int (*libbpf_print_fn_t)(enum libbpf_print_level, const char *format, va_list); on x86_64 a va_list is a pointer
_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
#: LIBBPF_DEBUG of libbpf's libbpf.h: what it does step by step
_DEBUG = 2


def _keep(level: int, text: bytes, arguments: int) -> int:
    if level == _DEBUG:
        return 0
    line = ctypes.create_string_buffer(1 << 20)
    ctypes.CDLL(None).vsnprintf(line, c_size_t(len(line)), text, c_void_p(arguments))
    _messages.append(line.value.decode(errors="replace"))
    return 0


#: kept: libbpf calls it as long as the process lives
_printer = _PRINT(_keep)


@contextmanager
def speaking() -> Generator[Callable[[], str]]:
    """Give a function that returns what libbpf has said since, for a StepError's log."""
    _messages.clear()
    yield lambda: "".join(_messages)


_cached: list[ctypes.CDLL] = []


def libbpf() -> ctypes.CDLL:
    """Return libbpf, loaded on first use: collecting tests on a host needs none."""
    if not _cached:
        _cached.append(_library())
    return _cached[0]


def _checked(result: int, stage: Stage, what: str) -> int:
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
        return int(libbpf().bpf_program__fd(self.pointer))


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What BPF_MAP_CREATE is asked for; sizes in bytes."""

    #: libbpf's name of the map type, such as ``percpu_array``
    type: str
    key: int
    value: int
    entries: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """An object that is loaded: its programs and its maps' fds by name."""

    programs: dict[str, Program]
    maps: dict[str, int]
    specs: tuple[MapSpec, ...]


def _each(step: str, pointer: int) -> Iterator[int]:
    """Iterate over libbpf's linked programs or maps."""
    found: int | None = None
    while found := getattr(libbpf(), step)(pointer, found):
        yield found


def kinds(path: Path) -> dict[str, str]:
    """Open an object and return its programs' names and libbpf's names of their types; raises StepError."""
    lib = libbpf()
    with speaking() as said:
        obj = lib.bpf_object__open_file(os.fsencode(path), None)
        if not obj:
            raise StepError(ctypes.get_errno(), "open", path.name, said())
    try:
        return {lib.bpf_program__name(p).decode(): kind_of(p) for p in _each("bpf_object__next_program", obj)}
    finally:
        lib.bpf_object__close(obj)


@contextmanager
def loaded(path: Path, *names: str) -> Generator[Loaded]:
    """Open an object, load the named programs (all, when none is named) and every map; close at the end."""
    lib = libbpf()
    with speaking() as said:
        obj = lib.bpf_object__open_file(os.fsencode(path), None)
        if not obj:
            raise StepError(ctypes.get_errno(), "open", path.name, said())
    try:
        programs = {lib.bpf_program__name(p).decode(): p for p in _each("bpf_object__next_program", obj)}
        if missing := set(names) - set(programs):
            raise KeyError(f"{path.name} has no program {', '.join(sorted(missing))}")
        for name, pointer in programs.items():
            lib.bpf_program__set_autoload(pointer, not names or name in names)
        with speaking() as said:
            result = lib.bpf_object__load(obj)
            if result < 0:
                raise StepError(
                    -result, "load", " ".join([path.name, *names]), said(), _refused_kind(programs, names, said())
                )
        wanted = {n: Program(n, p) for n, p in programs.items() if not names or n in names}
        maps = list(_each("bpf_object__next_map", obj))
        fds = {lib.bpf_map__name(m).decode(): lib.bpf_map__fd(m) for m in maps}
        yield Loaded(wanted, fds, tuple(_spec(m) for m in maps))
    finally:
        lib.bpf_object__close(obj)


def _refused_kind(programs: Mapping[str, int], names: Collection[str], log: str) -> str:
    """Return the type of the program that libbpf names in its lines, or of the only one that was to be loaded."""
    found = re.search(r"prog '([^']+)': BPF program load failed", log)
    if found:
        names = [found[1]]
    return kind_of(programs[next(iter(names))]) if len(names) == 1 else ""


def kind_of(pointer: int) -> str:
    """Return libbpf's name of a program's type."""
    return str(libbpf().libbpf_bpf_prog_type_str(libbpf().bpf_program__type(pointer)).decode())


def _kind_of_fd(fd: int) -> str:
    """Return libbpf's name of the type of the program that a file descriptor is, empty when it is none."""
    try:
        found = re.search(r"prog_type:\t(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text())
    except OSError:
        return ""
    return str(libbpf().libbpf_bpf_prog_type_str(int(found[1])).decode()) if found else ""


def where(pointer: int) -> str:
    """Say where a program's section wants it: ``kprobe do_x``, ``tracepoint a:b``, or else the program's name."""
    kind, _, target = str(libbpf().bpf_program__section_name(pointer).decode()).partition("/")
    if kind in {"tp", "tracepoint"}:
        return f"tracepoint {target.replace('/', ':')}"
    if kind in {"kprobe", "ksyscall", "kretprobe"}:
        return f"kprobe {target}"
    return str(libbpf().bpf_program__name(pointer).decode())


def _spec(map_pointer: int) -> MapSpec:
    lib = libbpf()
    return MapSpec(
        lib.libbpf_bpf_map_type_str(lib.bpf_map__type(map_pointer)).decode(),
        lib.bpf_map__key_size(map_pointer),
        lib.bpf_map__value_size(map_pointer),
        lib.bpf_map__max_entries(map_pointer),
    )


class _MapOpts(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf's bpf.h, up to the flags."""

    _fields_ = (
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
    )


def create_map(spec: MapSpec, *, flags: int = 0) -> int:
    """Make the one BPF_MAP_CREATE call; return the fd."""
    lib = libbpf()
    number = 0
    while (name := lib.libbpf_bpf_map_type_str(number)) != spec.type.encode():
        if name is None:
            raise ValueError(f"libbpf knows no map type {spec.type}")
        number += 1
    return create_map_of_type(number, spec, flags=flags)


def create_map_of_type(number: int, spec: MapSpec, *, flags: int = 0) -> int:
    """Make the one BPF_MAP_CREATE call for a type by its number, whether there is such a type or not."""
    opts = ctypes.byref(_MapOpts(sz=ctypes.sizeof(_MapOpts), map_flags=flags)) if flags else None
    result = libbpf().bpf_map_create(number, b"step", spec.key, spec.value, spec.entries, opts)
    return _checked(result, "map_create", spec.type)


def lookup(fd: int, spec: MapSpec, *, key: int) -> bytes:
    """Make the one BPF_MAP_LOOKUP_ELEM call; return the value's bytes."""
    value = ctypes.create_string_buffer(spec.value)
    key_bytes = key.to_bytes(spec.key, "little")
    _checked(libbpf().bpf_map_lookup_elem(fd, key_bytes, value), "lookup", spec.type)
    return value.raw


def pin(fd: int, path: Path) -> None:
    """Make the one BPF_OBJ_PIN call."""
    _checked(libbpf().bpf_obj_pin(fd, os.fsencode(path)), "pin", str(path))


def pin_program(program: Program, path: Path) -> None:
    """Pin as a loader does: libbpf looks at the file system first."""
    with speaking() as said:
        result = libbpf().bpf_program__pin(program.pointer, os.fsencode(path))
        if result < 0:
            raise StepError(-result, "pin", str(path), said())


def open_pin(path: Path) -> int:
    """Make the one BPF_OBJ_GET call; return the fd."""
    return _checked(libbpf().bpf_obj_get(os.fsencode(path)), "open", str(path))


def create_token(bpffs: int) -> int:
    """Make the one BPF_TOKEN_CREATE call on a bpffs mount's fd; return the token's fd."""
    return _checked(libbpf().bpf_token_create(bpffs, None), "token", "BPF token")


def load_again(program: Program) -> int:
    """Make the one BPF_PROG_LOAD call for a program that is loaded already; return the new fd.

    libbpf has resolved its relocations in place, map fds included, so neither maps nor BTF are made anew:
    what this call needs is what loading a program needs.
    """
    lib = libbpf()
    kind, pointer = lib.bpf_program__type(program.pointer), program.pointer
    instructions, count = lib.bpf_program__insns(pointer), lib.bpf_program__insn_cnt(pointer)
    result = lib.bpf_prog_load(kind, b"step", b"GPL", instructions, count, None)
    if result < 0:
        raise StepError(-result, "load", program.name, kind=kind_of(pointer))
    return int(result)


@contextmanager
def _link(program: Program, what: str, attach: Callable[[], int | None]) -> Generator[None]:
    with speaking() as said:
        pointer = attach()
        if not pointer:
            raise StepError(ctypes.get_errno(), "attach", what, said(), kind_of(program.pointer))
    try:
        yield
    finally:
        libbpf().bpf_link__destroy(pointer)


@contextmanager
def by_section(program: Program) -> Generator[None]:
    """Attach as the program's section says."""
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
    """Attach to a tracepoint: its number is read from tracefs, then perf_event_open."""
    step = libbpf().bpf_program__attach_tracepoint
    with _link(
        program, f"tracepoint {category}:{name}", lambda: step(program.pointer, category.encode(), name.encode())
    ):
        yield


def xdp_attach(fd: int, ifindex: int, flags: XdpFlags = XdpFlags.NONE, *, replacing: int | None = None) -> None:
    """Put a program onto an interface by netlink; `replacing` is the fd it expects to find there."""
    opts = None if replacing is None else ctypes.byref(_XdpAttachOpts(ctypes.sizeof(_XdpAttachOpts), replacing))
    result = libbpf().bpf_xdp_attach(ifindex, fd, flags, opts)
    if result < 0:
        raise StepError(-result, "attach", f"XDP on {ifindex}, {flags!r}", kind=_kind_of_fd(fd))


def xdp_detach(ifindex: int, flags: XdpFlags = XdpFlags.NONE) -> None:
    """Take whatever program is on the interface off it, by netlink."""
    _checked(libbpf().bpf_xdp_detach(ifindex, flags, None), "detach", f"XDP on {ifindex}, {flags!r}")


def xdp_id(ifindex: int, mode: XdpFlags = XdpFlags.NONE) -> int:
    """Return the id of the program on the interface, in this mode or in any; 0 when there is none."""
    found = _XdpQueryOpts(sz=ctypes.sizeof(_XdpQueryOpts))
    _checked(libbpf().bpf_xdp_query(ifindex, 0, ctypes.byref(found)), "query", f"XDP on {ifindex}")
    ids = {XdpFlags.NONE: found.prog_id, XdpFlags.NATIVE: found.drv_prog_id, XdpFlags.GENERIC: found.skb_prog_id}
    return int(ids[mode])
