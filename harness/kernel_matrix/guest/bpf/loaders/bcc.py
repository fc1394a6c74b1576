"""Load an object's C source with bcc, which compiles it in the guest with the kernel's own headers.

The object that was compiled on the host is opened, too, and never loaded: it says which programs and maps the source
has, where its sections attach, and how its structs are laid out. bcc makes everything else anew.

Compiling takes far longer than everything else. So what bcc has compiled (`loader_support.bcc_compiler`) is a
value, kept by the host under the name of all that decides it. A guest compiles what it did not get. Either way bcc's
own library then makes the maps, loads the value's instructions, and attaches.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import kernel_matrix
from kernel_matrix.guest.bpf import loaders
from kernel_matrix.guest.bpf.btf import Btf, Layout
from kernel_matrix.guest.bpf.library import captured_messages, libbpf
from kernel_matrix.guest.bpf.loader_support import bcc_compiler
from kernel_matrix.guest.bpf.loaders.libbpf import possible_cpus
from kernel_matrix.guest.bpf.step_error import Stage, StepError
from kernel_matrix.guest.bpf.steps import MapSpec, XdpFlags, iterate, kind_of, spec_of, type_numbers, xdp_step
from kernel_matrix.shared.bpf import compiled
from kernel_matrix.shared.bpf.compiled import COMPILER_VARIABLE, Compiled
from kernel_matrix.shared.project import build_folder, sources_folder

_R = TypeVar("_R")

#: the engine's folder: its files have the same place in it as on the host
_ENGINE = Path(kernel_matrix.__path__[0])


@cache
def _library() -> Any:  # noqa: ANN401 - bcc has no types
    """Return bcc's Python module, with the functions declared that its Python does not use."""
    bcc = bcc_compiler.library()
    number, text = ctypes.c_int, ctypes.c_char_p
    bcc.lib.bcc_create_map.argtypes = [number, text, *[number] * 4]
    # type, name, instructions, their bytes, license, version, level of the log, log, its size (libbpf.h)
    load = bcc.lib.bcc_prog_load
    load.argtypes = [number, text, text, number, text, ctypes.c_uint, number, text, ctypes.c_uint]
    bcc.lib.bcc_create_map.restype = load.restype = number
    return bcc


def _call(stage: Stage, what: str, call: Callable[[], object], kind: str = "") -> None:
    """Make a call of bcc's Python; its exception has no errno, but ctypes keeps that of the last C function."""
    ctypes.set_errno(0)
    with captured_messages() as messages:
        try:
            call()
        except Exception as error:
            number = ctypes.get_errno()
            if type(error) is not Exception:  # bcc raises no subclass: this is another mistake
                raise
            raise StepError(number, stage, what, f"{error}\n{messages()}", kind) from error


def _checked(result: int, stage: Stage, what: str) -> int:
    """Return the result of a C function of bcc; raises StepError when it is an error."""
    if result < 0:
        raise StepError(ctypes.get_errno(), stage, what)
    return result


@dataclass(frozen=True, slots=True)
class _Described:
    """What the object that was compiled on the host says about its source; libbpf has opened it and loads nothing."""

    pointer: int
    #: program -> its type, and the section that says where it is attached
    programs: dict[str, tuple[str, str]]
    maps: dict[str, MapSpec]

    @classmethod
    def of(cls, path: Path) -> _Described:
        """Open an object, for as long as the process lives; raises StepError."""
        lib = libbpf()
        with captured_messages() as messages:
            pointer = lib.bpf_object__open_file(os.fsencode(path), None)
            if not pointer:
                raise StepError(ctypes.get_errno(), "open", path.name, messages())
        programs = {
            lib.bpf_program__name(program).decode(): (kind_of(program), lib.bpf_program__section_name(program).decode())
            for program in iterate("bpf_object__next_program", pointer)
        }
        # an internal map holds a section of variables: .rodata, .bss
        maps = {
            lib.bpf_map__name(each).decode(): spec_of(each)
            for each in iterate("bpf_object__next_map", pointer)
            if not lib.bpf_map__is_internal(each)
        }
        return cls(pointer, programs, maps)


@dataclass(frozen=True, slots=True)
class _Module:
    """A source: what its object says of it, and what bcc has made of it."""

    described: _Described
    compiled: Compiled

    def check(self, path: Path) -> None:
        """Check that the maps are the object's, because layouts are read from the object's BTF."""
        for name, spec in self.described.maps.items():
            sizes = self.compiled.maps[name]
            if sizes != (spec.key, spec.value):
                raise TypeError(f"{path.name}: with bcc, key and value of {name} have {sizes} bytes: {spec}")


def _refusal(number: int, code: bytes) -> int:
    """Load a program without a log; return the kernel's errno, 0 when it is loaded after all.

    bcc loads a refused program again, with larger and larger buffers for the verifier's log. What remains is the errno
    of the last attempt: EFAULT when there was no memory for the log (kernel/bpf/verifier.c).
    """
    result = libbpf().bpf_prog_load(number, b"again", b"GPL", code, len(code) // compiled.INSTRUCTION, None)
    if result < 0:
        return -int(result)
    os.close(result)
    return 0


class Map:
    """A loaded map, its keys and values as bytes."""

    def __init__(self, lib: Any, fd: int, spec: MapSpec) -> None:  # noqa: ANN401 - bcc has no types
        self._lib = lib
        self.fd = fd
        self._spec = spec

    def get(self, key: int) -> bytes | None:
        """Return the value of a key, None when the map has none; raises StepError."""
        return self._lookup(key, self._spec.value)

    def get_each_cpu(self, key: int) -> tuple[bytes, ...]:
        """Return the values of a key in a per-CPU map; the kernel rounds the size of each up to eight bytes."""
        size = self._spec.value
        stride = (size + 7) // 8 * 8
        value = self._lookup(key, stride * possible_cpus()) or b""
        return tuple(value[start : start + size] for start in range(0, len(value), stride))

    def put(self, key: int, value: bytes) -> None:
        """Set the value of a key; raises StepError."""
        _checked(self._lib.bpf_update_elem(self.fd, self._key(key), value, 0), "update", "map")

    def keys(self) -> Iterator[int]:
        """Yield the keys, as unsigned integers; raises StepError."""
        last: bytes | None = None
        next_key = ctypes.create_string_buffer(self._spec.key)
        while (result := self._lib.bpf_get_next_key(self.fd, last, next_key)) == 0:
            last = next_key.raw
            yield int.from_bytes(last, "little")
        # ENOENT: no key follows
        if ctypes.get_errno() != errno.ENOENT:
            _checked(result, "lookup", "map keys")

    def _lookup(self, key: int, size: int) -> bytes | None:
        value = ctypes.create_string_buffer(size)
        result = self._lib.bpf_lookup_elem(self.fd, self._key(key), value)
        if result < 0 and ctypes.get_errno() == errno.ENOENT:
            return None
        _checked(result, "lookup", "map")
        return value.raw

    def _key(self, key: int) -> bytes:
        return key.to_bytes(self._spec.key, "little")


class RingBuffer:
    """The consumer's end of a ring buffer."""

    def __init__(self, lib: Any, fd: int) -> None:  # noqa: ANN401 - bcc has no types
        self._lib = lib
        self._records: list[bytes] = []
        # kept: bcc calls it as long as the buffer exists
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)(self._take)
        function = ctypes.cast(self._callback, lib.bpf_new_ringbuf.argtypes[1])
        self._pointer = lib.bpf_new_ringbuf(fd, function, None)
        if not self._pointer:
            raise StepError(ctypes.get_errno(), "open", "ring buffer")

    def _take(self, _: int, data: int, size: int) -> int:
        self._records.append(ctypes.string_at(data, size))
        return 0

    def consume(self) -> list[bytes]:
        """Return every record that has been submitted since the last call."""
        _checked(self._lib.bpf_consume_ringbuf(self._pointer), "read", "ring buffer")
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        """Unmap the buffer."""
        self._lib.bpf_free_ringbuf(self._pointer)


class Object:
    """A loaded object."""

    def __init__(self, module: _Module, max_entries: dict[str, int], stack: ExitStack) -> None:
        self._module = module
        self._stack = stack
        bcc = _library()
        self._lib = bcc.lib
        # bcc's own object, as its constructor leaves it, but for the compiler's module: it keeps what is attached
        self._bpf = bcc.BPF.__new__(bcc.BPF)
        self._bpf.funcs, self._bpf.kprobe_fds, self._bpf.tracepoint_fds = {}, {}, {}
        self._maps = {
            name: self._made(name, spec, max_entries.get(name, spec.entries))
            for name, spec in module.described.maps.items()
        }
        fds = {index: self._maps[name] for index, name in enumerate(module.compiled.maps)}
        for name, (kind, _) in module.described.programs.items():
            self._load(name, kind, compiled.with_numbers(module.compiled.programs[name], fds))

    def _made(self, name: str, spec: MapSpec, entries: int) -> int:
        """Make a map by bcc's own function; return its descriptor."""
        number = type_numbers("map")[spec.type]
        fd = self._lib.bcc_create_map(number, name.encode(), spec.key, spec.value, entries, 0)
        self._stack.callback(os.close, _checked(fd, "map_create", name))
        return int(fd)

    def _load(self, name: str, kind: str, code: bytes) -> None:
        """Load a program by bcc's own function; store it where bcc's Python looks for it when it attaches."""
        number, made = type_numbers("prog")[kind], self._module.compiled
        with captured_messages() as messages:
            fd = self._lib.bcc_prog_load(
                number, name.encode(), code, len(code), made.license.encode(), made.version, 0, None, 0
            )
            if fd < 0:
                last = ctypes.get_errno()
                raise StepError(_refusal(number, code) or last, "load", name, messages(), kind)
        self._bpf.funcs[name.encode()] = self._bpf.Function(self._bpf, name.encode(), fd)
        self._stack.callback(os.close, fd)

    @property
    def compiled(self) -> Compiled:
        """What bcc has made of the source."""
        return self._module.compiled

    def layout(self, struct: str, record: type[_R]) -> Layout[_R]:
        """Match a struct of the object with a dataclass."""
        return Layout.of(Btf(libbpf().bpf_object__btf(self._module.described.pointer)), struct, record)

    def map(self, name: str) -> Map:
        """Return a map; raises KeyError."""
        return Map(self._lib, self._maps[name], self._module.described.maps[name])

    def ring_buffer(self, name: str) -> RingBuffer:
        """Return the consumer's end of a ring buffer; closed with the object."""
        ring = RingBuffer(self._lib, self._maps[name])
        self._stack.callback(ring.close)
        return ring

    def attach(self, *names: str) -> ExitStack:
        """Attach programs where their sections say (all, when none is named); closing the result detaches them."""
        links = ExitStack()
        self._stack.push(links)
        for name, (kind, section) in self._module.described.programs.items():
            if not names or name in names:
                self._attach(links, name, kind, section)
        return links

    def attach_kprobe(self, name: str, symbol: str) -> ExitStack:
        """Attach a program to a kernel function; closing the result detaches it."""
        return self._attached(name, "kprobe", f"kprobe/{symbol}")

    def attach_tracepoint(self, name: str, category: str, event: str) -> ExitStack:
        """Attach a program to a tracepoint; closing the result detaches it."""
        return self._attached(name, "tracepoint", f"tracepoint/{category}/{event}")

    def _attached(self, name: str, kind: str, section: str) -> ExitStack:
        links = ExitStack()
        self._stack.push(links)
        self._attach(links, name, kind, section)
        return links

    def _attach(self, links: ExitStack, name: str, kind: str, section: str) -> None:
        bpf, function, target = self._bpf, name.encode(), section.partition("/")[2]
        if kind == "kprobe":
            what, attach, detach = (
                f"kprobe {target}",
                lambda: bpf.attach_kprobe(event=target.encode(), fn_name=function),
                lambda: bpf.detach_kprobe(target.encode(), function),
            )
        elif kind == "tracepoint":
            point = target.replace("/", ":")
            what, attach, detach = (
                f"tracepoint {point}",
                lambda: bpf.attach_tracepoint(tp=point.encode(), fn_name=function),
                lambda: bpf.detach_tracepoint(point.encode()),
            )
        else:
            raise StepError(0, "attach", f"{name}: section {section} names no target for bcc", kind=kind)
        _call("attach", what, attach, kind)
        links.callback(_call, "detach", what, detach, kind)

    def attach_xdp(self, name: str, ifindex: int, mode: XdpFlags) -> ExitStack:
        """Attach a program to an interface by netlink; closing the result detaches it."""
        links = ExitStack()
        self._stack.push(links)
        function = self._bpf.funcs[name.encode()]
        self._xdp("attach", ifindex, mode, lambda interface: self._bpf.attach_xdp(interface, function, mode))
        links.callback(self._xdp, "detach", ifindex, mode, lambda interface: self._bpf.remove_xdp(interface, mode))
        return links

    def _xdp(self, stage: Stage, ifindex: int, mode: XdpFlags, call: Callable[[bytes], object]) -> None:
        """Make a call for an interface, which bcc takes by its name."""
        what = xdp_step(ifindex, mode)
        try:
            interface = socket.if_indextoname(ifindex)
        except OSError as error:
            raise StepError(error.errno or 0, stage, what, kind="xdp") from error
        _call(stage, what, lambda: call(interface.encode()), "xdp")

    def test_run(self, name: str, data: bytes) -> tuple[int, bytes]:  # noqa: ARG002 - the contract's
        """Raise StepError: bcc has no function for it."""
        raise StepError(0, "test_run", f"{name}: bcc cannot run a program without attaching it")


def source_of(path: Path) -> Path:
    """Return the C source of an object in the build folder; the sources' folder is carried with the project."""
    try:
        source = compiled.source_of(path, build_folder(), sources_folder())
    except ValueError as error:
        raise StepError(errno.EOPNOTSUPP, "open", f"{path.name}: bcc compiles sources of the project only") from error
    if not source.is_file():
        name = source.relative_to(sources_folder())
        raise StepError(errno.ENOENT, "open", f"{path.name}: bcc compiles C, and there is no {name}")
    return source


def _module(path: Path) -> _Module:
    """Return an object's module, made once in this process; raises StepError."""
    made = _made(path)
    if isinstance(made, StepError):
        raise made.with_traceback(None)
    return made


@cache
def _made(path: Path) -> _Module | StepError:
    """Compile, or say why not: what bcc cannot compile takes it as long the next time, and minutes in a guest."""
    try:
        described = _Described.of(path)
        module = _Module(described, _compiled(path, described))
        module.check(path)
    except StepError as error:
        return error
    return module


def _compiled(path: Path, described: _Described) -> Compiled:
    """Return what this guest got with its project, or compile; a damaged entry counts as none."""
    if entry := compiled.kept(build_folder().parent / compiled.FOLDER, _key(path)):
        return compiled.decode(entry)
    made = compiled_anew(path, described)
    loaders.new.append(made)
    return made


def compiled_anew(path: Path, described: _Described | None = None) -> Compiled:
    """Compile an object's source, whatever is kept; raises StepError."""
    described = described or _Described.of(path)
    return bcc_compiler.compiled(
        source_of(path),
        list(described.programs),
        described.maps,
        name=str(path.relative_to(build_folder())),
        compiler=_compiler(),
        key=_key(path),
    )


def _compiler() -> str:
    return os.environ.get(COMPILER_VARIABLE, "")


def _key(path: Path) -> str:
    return compiled.key_of(_compiler(), _ENGINE, source_of(path), path)


@contextmanager
def opened(path: Path, *, max_entries: dict[str, int] | None = None) -> Iterator[Object]:
    """Compile an object's source unless this process has; make its maps and load its programs, for the block.

    Raises StepError: ``open`` with the compiler's messages and no errno, ``map_create`` and ``load`` with the kernel's.
    """
    module = _module(path)
    with ExitStack() as stack:
        yield Object(module, max_entries or {}, stack)


class Bcc:
    """bcc in this process."""

    name = "bcc"

    @property
    def version(self) -> str:
        """The version of bcc's Python package."""
        return str(_library().__version__)

    def opened(
        self, path: Path, *, max_entries: dict[str, int] | None = None
    ) -> AbstractContextManager[loaders.Object]:
        """Open and load an object, as `Loader` specifies."""
        return opened(path, max_entries=max_entries)

    def close(self) -> None:
        """Do nothing: what was opened is closed with its object, and what was compiled is kept for the next file."""


def create() -> Bcc:
    """Return the loader."""
    return Bcc()
