"""A guest as data, and the virtme-ng command that boots it. Pure: nothing is run here.

virtme-ng stays unmodified and does the booting. Its two 9p shares are attached but never mounted: the image
answers those mounts itself (guest tools from the image, modules from a second disk), so the guest depends on
nothing of the host's file system.
"""

from __future__ import annotations

import enum
import shlex
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.arch import CURRENT
from kernel_matrix.shared.protocol import ENTER_NAME

#: the guest finds its channel by this name in /sys/class/virtio-ports/*/name
PORT_NAME = "harness"
#: and by this one the port at which it is woken
WAKE_NAME = "harness-wake"

#: where the image holds the agent (`kernel_matrix.images.rootfs` puts it there)
AGENT = "/usr/lib/harness/agent.py"

#: added to the guest's kernel command line:
#: an oops ends the guest, so that the test that caused it is the one that is reported;
#: /dev/kmsg takes every marker that a test writes (by default ten lines in five seconds);
#: the self tests of the crypto code cost half a second and test nothing of ours;
#: grace periods of RCU are waited for by interrupting the processors, not by their next tick: detaching the network
#: monitor waits for one per tracepoint, 3 s without this and 0.1 s with it (emulated);
#: a guest that has fallen silent is asked what its kernel does by keys of its keyboard, of which distributions allow
#: only some (`kernel_matrix.relay.hang`)
COMMAND_LINE = (
    *("oops=panic", "printk.devkmsg=on", "cryptomgr.notests", "rcupdate.rcu_expedited=1"),
    "sysrq_always_enabled",
)

#: virtme-ng gives a guest five serial devices for a port each, and we one for three. QEMU makes room for 31 ports in
#: each, with two queues a port. Port 0 is a console's, which none of them is.
_SERIAL = ("-global", "virtio-serial-pci.max_ports=4")

#: QEMU's main loop polls a file descriptor for each queue of a device that is told of requests by an eventfd, and every
#: tick of an emulated guest wakes it, 700 times a second: with 465 descriptors it took 16 % of all CPU time. Without
#: eventfds the processor that has written to the queue serves it.
_EMULATED_SERIAL = ("-global", "virtio-serial-pci.ioeventfd=off")


#: of a guest
MEMORY_MIB = 512


class Accelerator(enum.StrEnum):
    """What runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class BootSpec:
    """All that decides what a guest is when it has booted: what the name of its snapshot is made of."""

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


@dataclass(frozen=True, slots=True)
class Memory:
    """A guest's memory in a file."""

    ram: Path
    #: the guest writes into the file; otherwise it has a private copy
    share: bool
    #: it begins as what the monitor loads, and does not boot
    incoming: bool


@dataclass(frozen=True, slots=True)
class Sockets:
    """The unix sockets at which QEMU offers the guest's ports, and its own monitor."""

    channel: Path
    wake: Path
    enter: Path
    monitor: Path

    @classmethod
    def below(cls, folder: Path) -> Sockets:
        """Return those of a guest that has that folder."""
        return cls(folder / "channel", folder / "wake", folder / "enter", folder / "monitor")


def vng_command(
    spec: BootSpec, vng: Path, *, sockets: Sockets, pidfile: Path, memory: Memory | None = None
) -> list[str]:
    """Build the argument list with which the command ``vng`` boots ``spec``.

    ``pidfile`` receives QEMU's pid. A guest that is to be saved or restored has its ``memory`` in a file, and its agent
    does before it is saved what every copy would have to do.
    """
    options = [
        *_memory_options(spec, memory),
        *emulation_options(spec),
        *_quicker_options(spec),
        *("-pidfile", str(pidfile)),
        *("-qmp", f"unix:{qemu_value(sockets.monitor)},server=on,wait=off"),
        *("-drive", f"if=none,id=modules,file={qemu_value(spec.modules)},format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=modules"),
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
        # virtme-ng hands this string to a shell
        f"--qemu-opts={shlex.join(options)}",
        *("--", f"python3 {AGENT}" if memory is None else f"python3 {AGENT} --prepare"),
    ]
    return command


def _command_line(spec: BootSpec) -> tuple[str, ...]:
    emulated = spec.accelerator is Accelerator.TCG
    return (*COMMAND_LINE, *CURRENT.emulated_command_line) if emulated else COMMAND_LINE


def emulation_options(spec: BootSpec) -> tuple[str, ...]:
    """Return what every emulated guest needs that has more than one processor."""
    return CURRENT.emulation if spec.accelerator is Accelerator.TCG else ()


def _quicker_options(spec: BootSpec) -> tuple[str, ...]:
    """Return what no guest needs, and each is quicker with."""
    emulated = spec.accelerator is Accelerator.TCG
    return (*_SERIAL, *_EMULATED_SERIAL, *CURRENT.emulated_processor) if emulated else _SERIAL


def _port_options(identity: str, name: str, socket: Path) -> list[str]:
    return [
        *("-chardev", f"socket,id={identity},path={qemu_value(socket)},server=on,wait=off"),
        *("-device", f"virtserialport,name={name},chardev={identity},bus=channels.0"),
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
    """Quote a path for a QEMU option, where a comma separates and two commas are one."""
    return str(path).replace(",", ",,")
