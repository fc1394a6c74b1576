"""Where kernels come from: which provider a table names, and which keys it has."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec
import pytest

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images import providers
from kernel_matrix.shared.errors import ImageError, ManifestError

IMAGES = Path(__file__).resolve().parent.parent / "vmimages"
KNOWN = manifest.load(IMAGES)
COMMON = "keys: tier, provider, features, patience; of provider"


def kernel(provider: str, **keys: object) -> tuple[Manifest, Kernel]:
    entry = Kernel(tier="core", provider=provider, name="x", keys=keys)
    return msgspec.structs.replace(KNOWN, kernels=(entry,)), entry


@dataclass
class NoKeys:
    """A provider without keys of its own."""


@pytest.mark.parametrize(
    ("provider", "keys", "line"),
    [
        ("debian", {}, "provider debian needs suite"),
        ("debian", {"suite": "s"}, "provider debian needs series"),
        ("debian", {"suite": "s", "series": ""}, "provider debian needs series"),
        ("path", {}, "provider path needs vmlinuz"),
        ("path", {"vmlinuz": "/x", "suite": "s"}, f"unknown field `suite` ({COMMON} path: vmlinuz, modules, headers)"),
        (
            "debian",
            {"suite": "s", "series": "6.1", "colour": 1},
            f"unknown field `colour` ({COMMON} debian: suite, series, flavour)",
        ),
        ("debian", {"suite": "s", "series": 6.1}, "Expected `str`, got `float` - at `$.series` (keys: "),
        ("fedora", {}, "unknown provider 'fedora' (known: debian, path, or MODULE:CLASS)"),
        ("no_such_module:X", {}, "provider no_such_module:X: No module named 'no_such_module'"),
        ("pathlib:NoPath", {}, "provider pathlib:NoPath: module 'pathlib' has no attribute 'NoPath'"),
        ("pathlib:Path", {}, "provider pathlib:Path: <class 'pathlib.Path'> is no dataclass"),
        (":X", {}, "provider ':X' is no package.module:name"),
        ("pathlib:", {}, "provider 'pathlib:' is no package.module:name"),
        (f"{__name__}:NoKeys", {"a": 1}, f"unknown field `a` ({COMMON} {__name__}:NoKeys: )"),
    ],
)
def test_a_mistake_in_a_kernels_table_is_one_line(provider: str, keys: dict[str, object], line: str) -> None:
    known, wrong = kernel(provider, **keys)
    with pytest.raises(ManifestError) as caught:
        providers.of(known, wrong)
    assert str(caught.value).startswith('kernels.toml: kernel "x": ')
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_kernel_of_a_manifest_is_checked_when_it_is_read(tmp_path: Path) -> None:
    for path in IMAGES.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert images.load(tmp_path).kernels == KNOWN.kernels
    text = (tmp_path / "kernels.toml").read_text()
    (tmp_path / "kernels.toml").write_text(text.replace('flavour = "cloud', 'flavor = "cloud'))
    with pytest.raises(ManifestError, match=r'^kernels\.toml: kernel "6\.12-cloud": unknown field `flavor` '):
        images.load(tmp_path)


@pytest.mark.parametrize("kind", providers.BUILT_IN.values())
def test_a_provider_says_nothing_about_what_all_kernels_have(kind: type) -> None:
    assert not {field.name for field in fields(kind)} & {*manifest.KERNEL_KEYS, "name"}


def test_no_other_module_knows_a_provider_by_name() -> None:
    """Adding one touches one room: the engine asks the provider, and not for its name."""
    engine = Path(images.__file__).resolve().parents[1]
    own = engine / "images" / "providers"
    others = [path for path in engine.rglob("*.py") if not path.is_relative_to(own)]
    assert [path for path in others if re.search(r"provider\b\)?\s*(==|!=|(not )?in\b)", path.read_text())] == []


def image_of(name: str) -> images.KernelImage:
    return images.KernelImage(name, "6.1.0", "v", Path(), Path(), Path())


def test_headers_of_a_provider_that_has_none_are_one_line() -> None:
    known, entry = kernel(f"{__name__}:NoKeys")
    with pytest.raises(ImageError, match=r"^kernel x: provider [^\n]+:NoKeys has no headers$"):
        images.kernel_headers(known, entry, image_of("x"))
    known, entry = kernel("path", vmlinuz="/x")
    with pytest.raises(ImageError, match=r"^kernel x: its table names no headers$"):
        images.kernel_headers(known, entry, image_of("x"))


def test_headers_of_ones_own_kernel_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path / "cache"))
    build = tmp_path / "build"
    known, entry = kernel("path", vmlinuz="/x", headers=str(build))
    with pytest.raises(
        ManifestError, match=r'^kernels\.toml: kernel "x": headers [^\n]+ has no include/linux/kconfig\.h$'
    ):
        images.kernel_headers(known, entry, image_of("x"))
    for name in ("include/linux/kconfig.h", "include/config/X", "arch/x86/include/asm/a.h", "kernel/a.c"):
        path = build / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    first = images.kernel_headers(known, entry, image_of("x"))
    assert first.is_file()
    assert images.kernel_headers(known, entry, image_of("x")) == first
    (build / "include/linux/new.h").write_text("")
    assert images.kernel_headers(known, entry, image_of("x")) != first
