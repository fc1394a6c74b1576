"""The spec of a guest that is a process of the host (`fake_vng.py`)."""

from __future__ import annotations

from pathlib import Path

from kernel_matrix.vm.guest_spec import Accelerator, GuestSpec

from kernel_matrix.vm import slots

FAKE_VNG = Path(__file__).with_name("fake_vng.py")
#: far more than any of this takes; reached only when a test fails
LIMIT = 20.0


def spec_below(folder: Path) -> GuestSpec:
    """Return it with everything that it names below that folder, and a project of one file."""
    project = folder / "project"
    project.mkdir()
    (project / "file").write_text("carried")
    return GuestSpec(
        kernel="fake",
        vmlinuz=folder / "vmlinuz",
        modules=folder / "modules",
        root=folder / "root",
        accelerator=Accelerator.TCG,
        console=folder / "console" / "fake.log",
        project=project,
        slots=slots.make(folder, 1),
        boot_timeout=LIMIT,
        vng=FAKE_VNG,
    )
