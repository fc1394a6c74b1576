"""The command that boots a guest."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.relay.job import Job
from kernel_matrix.relay.payload import Payload
from kernel_matrix.shared import wire
from kernel_matrix.shared.channel.protocol import HEADERS_DISK
from kernel_matrix.vm.boot_spec import AGENT, Accelerator, BootSpec, Memory, Sockets, qemu_value, vng_command
from tests.fake_guest import BOOT, JOB

VNG = Path("/v/vng")


def command(spec: BootSpec) -> list[str]:
    return vng_command(spec, VNG, sockets=Sockets.below(Path("/t")), pidfile=Path("/t/pid"))


def qemu_options(spec: BootSpec) -> list[str]:
    return shlex.split(next(word for word in command(spec) if word.startswith("--qemu-opts=")).partition("=")[2])


def test_the_guest_runs_the_agent_of_its_image_as_root() -> None:
    words = command(BOOT)
    assert words[0] == "/v/vng"
    assert words[-2:] == ["--", f"python3 {AGENT}"]
    assert words[words.index("--user") + 1] == "root"
    assert words[words.index("--root-disk") + 1] == "/r/root.erofs"


def test_only_a_guest_to_be_saved_warms_up_for_its_copies() -> None:
    """Only a guest that is saved does beforehand the work that all its copies would repeat."""
    for incoming in (False, True):
        memory = Memory(Path("/s/ram"), share=not incoming, incoming=incoming)
        words = vng_command(BOOT, VNG, sockets=Sockets.below(Path("/t")), pidfile=Path("/t/pid"), memory=memory)
        assert words[-1] == f"python3 {AGENT} --prepare"


def test_a_disk_with_headers_is_there_on_request_only() -> None:
    """The guest finds it by its serial number; a guest with it is another snapshot."""
    assert not any("headers" in word for word in qemu_options(BOOT))
    words = qemu_options(replace(BOOT, headers=Path("/h/a,b.erofs")))
    assert "if=none,id=headers,file=/h/a,,b.erofs,format=raw,readonly=on" in words
    assert f"virtio-blk-pci,drive=headers,serial={HEADERS_DISK}" in words
    # the modules stay the second disk (vmimages/mount.9p)
    assert words.index("virtio-blk-pci,drive=modules") < words.index(
        f"virtio-blk-pci,drive=headers,serial={HEADERS_DISK}"
    )
    # VIRTIO_BLK_ID_BYTES of linux/virtio_blk.h
    assert len(HEADERS_DISK) <= 20


def test_kvm_is_switched_off_only_when_emulating() -> None:
    assert "--disable-kvm" in command(BOOT)
    assert "--disable-kvm" not in command(replace(BOOT, accelerator=Accelerator.KVM))


def test_an_emulated_guest_runs_all_its_processors_in_one_thread() -> None:
    """With a thread each, QEMU runs stale translations of code that the kernel rewrites."""
    assert "tcg,thread=single" in qemu_options(BOOT)
    assert "-accel" not in qemu_options(replace(BOOT, accelerator=Accelerator.KVM))


def test_the_tsc_is_trusted_where_processors_agree_on_it() -> None:
    """The time-stamp counter is trusted where all processors read the same value."""
    assert "tsc=reliable" in command(BOOT)
    assert "tsc=reliable" not in command(replace(BOOT, accelerator=Accelerator.KVM))


def test_only_an_emulated_guest_has_fixed_addresses() -> None:
    """Emulation translates each address once; another guest gains nothing from fixed addresses."""
    assert "norandmaps" in command(BOOT)
    assert "norandmaps" not in command(replace(BOOT, accelerator=Accelerator.KVM))


def test_an_emulated_guest_does_not_calibrate_its_timer() -> None:
    """The host's other work would distort the measurement of the timer."""
    assert "no_timer_check" in command(BOOT)
    assert "no_timer_check" not in command(replace(BOOT, accelerator=Accelerator.KVM))


def test_the_main_loop_has_little_to_poll() -> None:
    """Every serial device has room for its ports, and no more; an emulated one has no eventfds."""
    emulated, virtual = qemu_options(BOOT), qemu_options(replace(BOOT, accelerator=Accelerator.KVM))
    assert "virtio-serial-pci.ioeventfd=off" in emulated
    assert "virtio-serial-pci.ioeventfd=off" not in virtual
    for options in (emulated, virtual):
        (room,) = (int(option.rpartition("=")[2]) for option in options if "max_ports" in option)
        ports = [option for option in options if option.startswith("virtserialport")]
        assert len(ports) < room, "port 0 is a console's"


def test_an_emulated_kernel_does_not_copy_byte_by_byte() -> None:
    assert "max,erms=off,fsrm=off" in qemu_options(BOOT)
    assert "-cpu" not in qemu_options(replace(BOOT, accelerator=Accelerator.KVM))


def test_nothing_of_the_host_can_be_written() -> None:
    words = [*command(BOOT), *qemu_options(BOOT)]
    assert not {"--rw", "--rwdir"} & set(words)
    assert all("readonly=on" in word for word in words if word.startswith("if=none"))
    assert "--network" not in words


def test_the_tests_own_kernel_arguments_come_last() -> None:
    words = command(replace(BOOT, append=("lsm=bpf",)))
    assert [words[index + 1] for index, word in enumerate(words) if word == "--append"][-1] == "lsm=bpf"


@given(st.text(alphabet="ab ,;'\"$&=", min_size=1, max_size=12))
def test_any_path_survives_the_shell_and_qemu(name: str) -> None:
    path = Path("/d") / name
    drive = next(word for word in qemu_options(replace(BOOT, modules=path)) if word.startswith("if=none"))
    assert f"file={qemu_value(path)},format=raw" in drive
    assert qemu_value(path).replace(",,", "\0").count(",") == 0


def test_a_job_survives_its_file() -> None:
    assert wire.decode(wire.encode(JOB), Job) == JOB
    saved = replace(JOB, snapshot=(Path("/cache"), "key"), worker="again", payload=Payload(Path("/p"), ("suites",)))
    assert wire.decode(wire.encode(saved), Job) == saved
