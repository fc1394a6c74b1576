"""What owners and modes say of a process that is not this one."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.diagnosis.access import denied
from kernel_matrix.guest.bpf.diagnosis.machine import situation
from kernel_matrix.guest.bpf.step_error import Credentials, StepError

_OWNER, _OTHER = os.getuid(), os.getuid() + 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make a file below a folder that everybody reaches."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == _OWNER and folder != Path("/"):
            folder.chmod(0o755)
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "file"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("stage", "folder", "mode", "uid", "inside", "refused"),
    [
        ("open", 0o755, 0o600, _OWNER, False, False),
        ("open", 0o755, 0o600, _OTHER, False, True),
        ("open", 0o755, 0o606, _OTHER, False, False),
        ("open", 0o755, 0o604, _OTHER, False, True),
        ("open", 0o700, 0o666, _OTHER, False, True),
        ("open", 0o755, 0o600, _OWNER, True, True),
        ("read", 0o755, 0o604, _OTHER, False, False),
        ("read", 0o755, 0o400, _OTHER, False, True),
        ("pin", 0o755, 0o600, _OTHER, False, True),
        ("pin", 0o755, 0o600, _OWNER, False, False),
        ("pin", 0o757, 0o600, _OTHER, False, False),
        ("load", 0o700, 0o600, _OTHER, False, False),
    ],
)
def test_modes_refuse_who_is_not_the_owner(
    file: Path, stage: str, folder: int, mode: int, uid: int, *, inside: bool, refused: bool
) -> None:
    """``inside``: from another user namespace, where the number of the uid says nothing."""
    file.chmod(mode)
    file.parent.chmod(folder)
    assert denied(stage, str(file), Credentials(uid, 0, None, inside)) is refused


def test_what_names_no_file_is_not_denied() -> None:
    assert not denied("open", "prog 12", Credentials(_OTHER, 0, None, in_user_namespace=False))


def test_a_refusal_crosses_processes_with_who_asked() -> None:
    """The namespace is looked up where it was asked, when the error goes elsewhere."""
    error = StepError(1, "load", "x", "log", "xdp", token=True)
    assert error.credentials.in_user_namespace is None
    back = pickle.loads(pickle.dumps(error))  # noqa: S301  it was written here
    assert (back.errno, back.stage, back.what, back.log, back.kind, back.token) == (1, "load", "x", "log", "xdp", True)
    assert back.credentials == error.credentials.resolved()
    assert back.credentials.in_user_namespace is not None


def test_a_map_not_created_is_told_from_a_program_not_loaded() -> None:
    """libbpf creates the maps of an object when it loads it."""
    error = StepError(22, "load", "x.bpf.o", "libbpf: map 'm': failed to create: -EINVAL\n", "xdp")
    assert situation(error).stage == "map_create"
    assert situation(StepError(22, "load", "x.bpf.o", "", "xdp")).stage == "load"
