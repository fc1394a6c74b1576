"""A guest as data, and the virtme-ng command that boots it. Pure: nothing runs here.

An unmodified virtme-ng boots the guest. Its two 9p shares are attached but never mounted: a program of the image
replaces those mounts (guest tools from the image, modules from a second disk), so the guest depends on no file of
the host.
"""

from __future__ import annotations

import enum
import shlex
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.arch import CURRENT
from kernel_matrix.shared.channel.protocol import ENTER_NAME, HEADERS_DISK
from kernel_matrix.shared.project import MEMORY_MIB

#: name of the port for the channel to the guest, which finds it in /sys/class/virtio-ports/*/name
PORT_NAME = "harness"
#: name of the port through which a guest is woken
WAKE_NAME = "harness-wake"

#: path of the agent in the root image (`kernel_matrix.images.rootfs` copies it there)
AGENT = "/usr/lib/harness/agent.py"

#: added to the guest's kernel command line:
#: oops=panic: an oops ends the guest, so that the report names the test that caused it;
#: printk.devkmsg=on: /dev/kmsg accepts every marker that a test writes (by default ten lines in five seconds);
#: cryptomgr.notests: self tests of the crypto code take half a second and test nothing that is used here;
#: rcupdate.rcu_expedited=1: RCU grace periods interrupt the processors instead of waiting for their next tick;
#: detaching the network monitor waits for one per tracepoint, 3 s without this and 0.1 s with it (emulated);
#: sysrq_always_enabled: the SysRq keys query the kernel of a silent guest (`kernel_matrix.relay.hang`), and
#: distributions allow only some of them
COMMAND_LINE = (
    *("oops=panic", "printk.devkmsg=on", "cryptomgr.notests", "rcupdate.rcu_expedited=1"),
    "sysrq_always_enabled",
)

#: virtme-ng adds five serial devices with a port each, and the harness one with three. QEMU reserves 31 ports in each
#: device, with two queues a port. Port 0 is reserved for a console, and none of these is one.
_SERIAL = ("-global", "virtio-serial-pci.max_ports=4")

#: With ioeventfd, QEMU's main loop polls a file descriptor for each queue of a device, and every tick of an emulated
#: guest wakes it, 700 times a second: with 465 descriptors it took 16 % of all CPU time. Without ioeventfd, the
#: virtual processor that has written to the queue serves it.
_EMULATED_SERIAL = ("-global", "virtio-serial-pci.ioeventfd=off")


class Accelerator(enum.StrEnum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class BootSpec:
    """Everything that determines the state of a booted guest; the key of its snapshot is made of it."""

    vmlinuz: Path
    #: erofs of /lib/modules, the guest's second disk
    modules: Path
    #: erofs of the guest's root, the first disk
    root: Path
    accelerator: Accelerator
    cpus: int = 2
    memory_mib: int = MEMORY_MIB
    #: added to the kernel's command line
    append: tuple[str, ...] = ()
    #: erofs of the kernel's headers, for a loader that compiles in the guest; None: there is no such disk
    headers: Path | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """A file with a guest's memory."""

    ram: Path
    #: whether the guest writes into the file; otherwise it has a private copy
    share: bool
    #: whether its state is loaded through the monitor instead of booting
    incoming: bool


@dataclass(frozen=True, slots=True)
class Sockets:
    """The unix sockets of the guest's ports and of QEMU's monitor."""

    channel: Path
    wake: Path
    enter: Path
    monitor: Path

    @classmethod
    def below(cls, folder: Path) -> Sockets:
        """Return the sockets in a guest's folder."""
        return cls(folder / "channel", folder / "wake", folder / "enter", folder / "monitor")


def vng_command(
    spec: BootSpec, vng: Path, *, sockets: Sockets, pidfile: Path, memory: Memory | None = None
) -> list[str]:
    """Return the arguments with which the command ``vng`` boots ``spec``.

    QEMU writes its pid to ``pidfile``. A guest that will be saved or restored has its ``memory`` in a file, and its
    agent does in advance, once, what every copy would have to do.
    """
    options = [
        *_memory_options(spec, memory),
        *emulation_options(spec),
        *_performance_options(spec),
        *("-pidfile", str(pidfile)),
        *("-qmp", f"unix:{qemu_value(sockets.monitor)},server=on,wait=off"),
        *("-drive", f"if=none,id=modules,file={qemu_value(spec.modules)},format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=modules"),
        *_headers_options(spec),
        *("-device", "virtio-serial-pci,id=channels"),
        *_port_options("channel", PORT_NAME, sockets.channel),
        *_port_options("wake", WAKE_NAME, sockets.wake),
        *_port_options("enter", ENTER_NAME, sockets.enter),
    ]
    command = [str(vng), "--verbose", "--disable-microvm", "--force-9p"]
    if spec.accelerator is Accelerator.TCG:
        command.append("--disable-kvm")
    for argument in (*_command_line(spec), *spec.append):
        command += ["--append", argument]
    command += [
        *("--root-disk", str(spec.root), "--root-fstype", "erofs"),
        *("--run", str(spec.vmlinuz)),
        *("--user", "root", "--cpus", str(spec.cpus), "--memory", f"{spec.memory_mib}M"),
        # virtme-ng passes this string to a shell
        f"--qemu-opts={shlex.join(options)}",
        *("--", f"python3 {AGENT}" if memory is None else f"python3 {AGENT} --prepare"),
    ]
    return command


def _command_line(spec: BootSpec) -> tuple[str, ...]:
    emulated = spec.accelerator is Accelerator.TCG
    return (*COMMAND_LINE, *CURRENT.emulated_command_line) if emulated else COMMAND_LINE


def emulation_options(spec: BootSpec) -> tuple[str, ...]:
    """Return the options that every emulated guest with more than one processor needs."""
    return CURRENT.emulation if spec.accelerator is Accelerator.TCG else ()


def _performance_options(spec: BootSpec) -> tuple[str, ...]:
    """Return options that make guests faster and are not required."""
    emulated = spec.accelerator is Accelerator.TCG
    return (*_SERIAL, *_EMULATED_SERIAL, *CURRENT.emulated_processor) if emulated else _SERIAL


def _port_options(identity: str, name: str, socket: Path) -> list[str]:
    return [
        *("-chardev", f"socket,id={identity},path={qemu_value(socket)},server=on,wait=off"),
        *("-device", f"virtserialport,name={name},chardev={identity},bus=channels.0"),
    ]


def _headers_options(spec: BootSpec) -> list[str]:
    if spec.headers is None:
        return []
    return [
        *("-drive", f"if=none,id=headers,file={qemu_value(spec.headers)},format=raw,readonly=on"),
        *("-device", f"virtio-blk-pci,drive=headers,serial={HEADERS_DISK}"),
    ]


def _memory_options(spec: BootSpec, memory: Memory | None) -> list[str]:
    if memory is None:
        return []
    backend = f"memory-backend-file,id=ram,size={spec.memory_mib}M,mem-path={qemu_value(memory.ram)}"
    return [
        *("-object", f"{backend},share={'on' if memory.share else 'off'}"),
        *("-machine", "memory-backend=ram"),
        *(["-incoming", "defer"] if memory.incoming else []),
    ]


def qemu_value(path: Path) -> str:
    """Quote a path for a QEMU option, in which a comma separates values and two commas are one."""
    return str(path).replace(",", ",,")
