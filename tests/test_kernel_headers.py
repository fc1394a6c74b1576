"""Which guests get their kernel's headers, and what happens where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.images import KernelImage, RootImage
from kernel_matrix.plan import preparation, provisioning, selection
from kernel_matrix.plan.guest_list import ListedGuest, RunRequest
from kernel_matrix.plan.provisioning import Guest
from kernel_matrix.shared.errors import ImageError, NotInArchive, ToolMissing
from tests.projects import HERE

LOADERS = {"libbpf": "", "aya": "aya: no cargo", "bcc": ""}


def guest(headers: str = "", vmlinuz: str = "/k/one/boot/vmlinuz-6.1.0") -> Guest:
    image = KernelImage("6.1", "6.1.0", "1", Path(vmlinuz), Path(), Path())
    return Guest(ListedGuest("6.1", frozenset()), image, headers=Path(headers) if headers else None)


def with_headers(
    monkeypatch: pytest.MonkeyPatch, error: ImageError | None, *, required: tuple[str, ...] = (), loads: bool = True
) -> tuple[Guest, list[str]]:
    """Return the guest and what was said."""

    def kernel_headers(*_: object, **__: object) -> Path:
        if error:
            raise error
        return Path("/h/headers.erofs")

    monkeypatch.setattr(images, "kernel_headers", kernel_headers)
    monkeypatch.setattr(selection, "loads", lambda *_: loads)
    said: list[str] = []
    request = RunRequest((), (), None, False, None, loaders=tuple(LOADERS), required_loaders=required)
    made = provisioning.with_headers(HERE, guest(), manifest.load(HERE.images), request, LOADERS, said.append)
    return made, said


def test_a_guest_in_which_a_loader_compiles_gets_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = with_headers(monkeypatch, None, required=("bcc",))
    assert (made.headers, made.loaders, said) == (Path("/h/headers.erofs"), LOADERS, [])


def test_a_guest_whose_tests_load_nothing_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = with_headers(monkeypatch, ImageError("not asked"), required=("bcc",), loads=False)
    assert (made.headers, made.loaders, said) == (None, LOADERS, [])


@pytest.mark.parametrize("error", [ImageError("kernel 6.1: the mirror is down"), NotInArchive("kernel 6.1: none")])
def test_without_headers_the_loader_is_left_out(error: ImageError, monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = with_headers(monkeypatch, error, required=("aya",))
    assert said == [f"left out on 6.1: bcc: {error}"]
    assert (made.headers, made.loaders) == (None, {**LOADERS, "bcc": f"bcc: {error}"})


def test_a_required_loader_fails_where_headers_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolMissing, match=r"^--require-loader bcc: kernel 6\.1: the mirror is down$"):
        with_headers(monkeypatch, ImageError("kernel 6.1: the mirror is down"), required=("bcc",))


def test_a_required_loader_is_left_out_where_a_kernel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """6.16 to 7.1: their images are in the archive, their headers are not."""
    made, said = with_headers(monkeypatch, NotInArchive("kernel 6.1: no headers"), required=("bcc",))
    assert said == ["left out on 6.1: bcc: kernel 6.1: no headers"]
    assert made.loaders["bcc"] == "bcc: kernel 6.1: no headers"


def test_a_compiler_is_named_by_image_headers_and_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """bcc and LLVM are in the root image, which is named by its content as the others are."""
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))
    root, headers = RootImage(Path(), "r"), "/h/one/headers.erofs"
    folders = [
        preparation._compiler(root, guest(headers)),
        preparation._compiler(RootImage(Path(), "another"), guest(headers)),
        preparation._compiler(root, guest("/h/two/headers.erofs")),
        preparation._compiler(root, guest(headers, "/k/two/boot/vmlinuz-6.1.0")),
    ]
    assert preparation._compiler(RootImage(Path("x"), "r"), guest("/elsewhere/one/headers.erofs")) == folders[0]
    assert len(set(folders)) == 4
    assert {folder.parent for folder in folders if folder} == {tmp_path / "compiled"}
    assert preparation._compiler(root, guest()) is None
