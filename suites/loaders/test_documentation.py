"""HyperMesh's own documentation, which loads with aya: each line as it is written, and where it fails, what works.

docs/loaders.md has the corrected lines; they are those of the tests here.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.loader_support.loader_program import ProgramLoader
from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.bpf.steps import XdpFlags, object_path, xdp_id
from kernel_matrix.guest.pytest.marks import with_loaders
from kernel_matrix.guest.pytest.refusal import Refused
from kernel_matrix.guest.system import execs
from kernel_matrix.guest.system.netns import Namespace, loopback, namespace
from kernel_matrix.guest.system.privilege import NOBODY, Cap
from kernel_matrix.shared.project import loader_program

pytestmark = with_loaders("aya")


@pytest.fixture
def place() -> Iterator[Namespace]:
    """Enter a network namespace with loopback."""
    with namespace() as made, made.entered():
        yield made


def test_the_packet_counter_on_lo_is_generic(loader: Loader, place: Namespace) -> None:
    """``attach("lo", XdpFlags::default())``, since aya 0.14 ``XdpMode::default()``: attached, in the stack.

    Loopback's driver has no XDP, so the kernel takes the generic mode (net/core/dev.c, dev_xdp_mode()).
    """
    lo = loopback(place)
    counter = object_path("xdp_packet_counter")
    with loader.opened(counter) as obj, obj.attach_xdp("xdp_packet_counter", lo.index, XdpFlags.NONE):
        assert xdp_id(lo.index, XdpFlags.GENERIC)
        assert not xdp_id(lo.index, XdpFlags.NATIVE)


def test_sys_execve_is_no_symbol(loader: Loader, refused: Refused) -> None:
    """``trace_execve`` at ``sys_execve``: ENOENT; aya takes the name as it is, and the symbol has a prefix."""
    with loader.opened(object_path("kprobe_execve")) as obj, refused(errno.ENOENT, stage="attach"):
        obj.attach_kprobe("trace_execve", "sys_execve")


def test_the_symbol_with_its_prefix_is_attached(loader: Loader) -> None:
    """``attach("__x64_sys_execve", 0)``: an event for each call."""
    with loader.opened(object_path("kprobe_execve")) as obj, obj.attach_kprobe("trace_execve", "__x64_sys_execve"):
        ring = obj.ring_buffer("events")
        ring.consume()
        child = execs.in_child(lambda: os.execv("/bin/true", ["/bin/true"]))
        assert child.pid > 0
        assert len(ring.consume()) == 1


def _connects() -> None:
    """Make one connect, which fails."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        assert client.connect_ex("/no/such/socket") == errno.ENOENT


def test_connect_s_entry_alone_reports_nothing(loader: Loader) -> None:
    """``trace_connect_enter`` at ``syscalls/sys_enter_connect``: attached, and no event, ever.

    An event is sent at the call's end, by a program of its own: ``trace_connect_exit``.
    """
    with loader.opened(object_path("tracepoint_network")) as obj:
        ring = obj.ring_buffer("events")
        with obj.attach_tracepoint("trace_connect_enter", "syscalls", "sys_enter_connect"):
            _connects()
            assert ring.consume() == []


def test_connect_is_reported_with_both_programs(loader: Loader) -> None:
    """And the same at ``syscalls/sys_exit_connect`` with ``trace_connect_exit``."""
    with loader.opened(object_path("tracepoint_network")) as obj, ExitStack() as links:
        ring = obj.ring_buffer("events")
        for end in ("enter", "exit"):
            links.enter_context(obj.attach_tracepoint(f"trace_connect_{end}", "syscalls", f"sys_{end}_connect"))
        _connects()
        assert len(ring.consume()) == 1


#: how a program is started: the path of ``hypermesh`` -> a shell's command
Start = Callable[[Path], str]
#: load and attach take these together (docs/capabilities.md)
_NEEDED = "cap_bpf,cap_net_admin,cap_perfmon"


@pytest.fixture
def hypermesh(loader: Loader, tmp_path: Path) -> Iterator[Callable[[Start], ProgramLoader]]:
    """Return a function that makes a loader of ``hypermesh``, aya's program, started by a shell's command."""
    folder = Path(tmp_path)
    for up in (folder, *folder.parents):
        if up.owner() == "root" and not up.stat().st_mode & 0o005:
            up.chmod(up.stat().st_mode | 0o055)
    binary = folder / "hypermesh"
    shutil.copy(loader_program(loader.name), binary)
    binary.chmod(0o755)
    with ExitStack() as started:

        def make(start: Start) -> ProgramLoader:
            script = folder / "start"
            script.write_text(f"#!/bin/sh\nexec {start(binary)}\n")
            script.chmod(0o755)
            made = ProgramLoader(loader.name, script)
            started.callback(made.close)
            return made

        yield make


def _capabilities(loader: ProgramLoader) -> int:
    """Return the effective set of the program's process, a bit for each capability."""
    status = Path(f"/proc/{loader.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)


def _bits(*caps: Cap) -> int:
    return sum(1 << cap for cap in caps)


def _as_nobody(binary: Path) -> str:
    return f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {binary}"


def test_setcap_of_cap_bpf_alone_loads_nothing(
    hypermesh: Callable[[Start], ProgramLoader], tmp_path: Path, refused: Refused
) -> None:
    """``sudo setcap cap_bpf+ep ./hypermesh``: maps are created, and the XDP program is refused with EPERM.

    It takes CAP_NET_ADMIN (kernel/bpf/syscall.c, is_net_admin_prog_type()).
    """
    loader = hypermesh(_as_nobody)
    subprocess.run(["setcap", "cap_bpf+ep", str(tmp_path / "hypermesh")], check=True)
    assert _capabilities(loader) == _bits(Cap.BPF)
    with refused(errno.EPERM, stage="load"), loader.opened(object_path("xdp_packet_counter")):
        pass


def test_setcap_of_three_capabilities_loads(hypermesh: Callable[[Start], ProgramLoader], tmp_path: Path) -> None:
    """``sudo setcap cap_bpf,cap_net_admin,cap_perfmon+ep ./hypermesh``: load and attach, as any user."""
    loader = hypermesh(_as_nobody)
    subprocess.run(["setcap", f"{_NEEDED}+ep", str(tmp_path / "hypermesh")], check=True)
    assert _capabilities(loader) == _bits(Cap.BPF, Cap.NET_ADMIN, Cap.PERFMON)
    with loader.opened(object_path("xdp_packet_counter")):
        pass


def test_capsh_as_root_takes_nothing_away(hypermesh: Callable[[Start], ProgramLoader]) -> None:
    """``capsh --caps="cap_bpf+eip" -- -c ./hypermesh``: root's exec gives it every capability (capabilities(7))."""
    loader = hypermesh(lambda binary: f'capsh --caps="cap_bpf+eip" -- -c {binary}')
    everything = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert _capabilities(loader) == (1 << everything + 1) - 1
    with loader.opened(object_path("xdp_packet_counter")):
        pass


def test_capsh_with_ambient_capabilities_is_exact(hypermesh: Callable[[Start], ProgramLoader]) -> None:
    """Another user, and the capabilities as inheritable and ambient: exactly these arrive."""
    options = f"--keep=1 --user=nobody --inh={_NEEDED} --addamb={_NEEDED}"
    loader = hypermesh(lambda binary: f"capsh {options} -- -c {binary}")
    assert _capabilities(loader) == _bits(Cap.BPF, Cap.NET_ADMIN, Cap.PERFMON)
    with loader.opened(object_path("xdp_packet_counter")):
        pass
