"""vmimages/*.toml: what is accepted, and the line that says what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_matrix.config import manifest
from kernel_matrix.images.packages import lock
from kernel_matrix.shared.errors import ManifestError

FOLDER = Path(__file__).parents[1] / "vmimages"
DEBIAN = 'tier = "core"\nprovider = "debian"\nsuite = "s"\nseries = "6.1"\n'
KEYS = "keys: tier, provider, features, patience"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[kernel", "kernels.toml: "),
        ('[kernels."6.1"]', 'kernels.toml: only [gate] and tables [kernel."NAME"] are allowed'),
        ("kernel = 1", 'kernels.toml: only [gate] and tables [kernel."NAME"] are allowed'),
        ('kernel."6.1" = 1', "kernels.toml: kernel \"6.1\": must be a table without a key 'name'"),
        (f'[kernel."6.1"]\nname = "x"\n{DEBIAN}', 'kernels.toml: kernel "6.1": must be a table without a key'),
        ('[kernel."6.1"]\ntier = "gold"\nprovider = "debian"', "Invalid enum value 'gold'"),
        ('[kernel."6.1"]\ntier = "gold"\nprovider = "debian"', KEYS),
        (f'[kernel."full"]\n{DEBIAN}', 'kernel "full": not a name for a kernel'),
        (f'[kernel."a/b"]\n{DEBIAN}', 'kernel "a/b": not a name for a kernel'),
        (f'[kernel."6.1"]\n{DEBIAN}features = ["tls"]', "unknown feature 'tls' (known: ringbuf)"),
    ],
)
def test_a_mistake_is_one_line(text: str, line: str) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest.parse_kernels(text, ["ringbuf"])
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file or directory"):
        manifest.load(tmp_path)


def test_kernels_are_chosen_by_name_and_by_tier() -> None:
    known = manifest.load(FOLDER)

    def names(*wanted: str) -> list[str]:
        return [kernel.name for kernel in manifest.select(known, wanted)]

    assert names() == names("core") == ["5.10", "6.1", "6.12", "7.3"]
    assert names("full") == [kernel.name for kernel in known.kernels]
    # the manifest's order, and none twice
    assert names("7.3", "6.1", "7.3") == ["6.1", "7.3"]
    assert names("6.12-rt", "core") == ["5.10", "6.1", "6.12", "7.3", "6.12-rt"]
    with pytest.raises(ManifestError, match=r"unknown kernel '6' \(known: core, full, 5\.10, 6\.1,"):
        names("6")


def test_the_promised_kernels_are_there_and_all_but_three_locked() -> None:
    known = manifest.load(FOLDER)
    extended = {"6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "6.12-rt", "6.12-cloud"}
    assert {kernel.name for kernel in known.kernels if kernel.tier == "extended"} == extended
    # of these the mirror has no whole release any more; when it has one again, the lock is to be updated
    gone = {"6.19", "7.0", "7.1"}
    assert set(lock.read(FOLDER / "kernels.lock.toml").kernels) == {kernel.name for kernel in known.kernels} - gone


def test_nothing_that_is_committed_names_a_host() -> None:
    for path in [*FOLDER.iterdir(), *(FOLDER.parent / "requirements").iterdir()]:
        assert "://" not in path.read_text(), path
