"""Jobs for relays: one that never runs, and one whose guest is a process on the host (`fake_vng.py`)."""

from __future__ import annotations

from pathlib import Path

from kernel_matrix.relay.job import Job
from kernel_matrix.relay.payload import Payload
from kernel_matrix.vm import slots
from kernel_matrix.vm.boot_spec import Accelerator, BootSpec

FAKE_VNG = Path(__file__).with_name("fake_vng.py")
#: seconds; much longer than any test takes, and reached only when one fails
LIMIT = 20.0

#: none of these files exists
BOOT = BootSpec(
    vmlinuz=Path("/k/boot/vmlinuz-6.1"),
    modules=Path("/k/modules.erofs"),
    root=Path("/r/root.erofs"),
    accelerator=Accelerator.TCG,
)
JOB = Job(
    kernel="6.1",
    boot=BOOT,
    payload=Payload(Path("/p")),
    console=Path("/c/6.1.log"),
    slots=(Path("/s/slot-0"),),
    boot_timeout=60,
    vng=Path("/v/vng"),
)


def job_below(folder: Path) -> Job:
    """Return a job with all its files below that folder, and a project of one file."""
    project = folder / "project"
    project.mkdir()
    (project / "file").write_text("carried")
    return Job(
        kernel="fake",
        boot=BootSpec(folder / "vmlinuz", folder / "modules", folder / "root", Accelerator.TCG),
        payload=Payload(project),
        console=folder / "console" / "fake.log",
        slots=slots.make(folder, 1),
        boot_timeout=LIMIT,
        vng=FAKE_VNG,
    )
