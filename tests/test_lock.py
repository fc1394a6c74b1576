"""kernels.lock.toml and the names of the archive's packages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.images.packages import lock
from kernel_matrix.images.packages.archive import Package, parse_packages
from kernel_matrix.shared.errors import ManifestError

words = st.text("az09.+~-:", min_size=1, max_size=8)
packages = st.builds(Package, name=words, version=words, sha256=words, size=st.integers(0, 1 << 40))


kernels = st.dictionaries(
    words, st.lists(packages, min_size=1, max_size=4, unique_by=lambda package: package.name).map(tuple), max_size=4
)


@given(kernels, kernels)
def test_a_lock_is_read_as_it_was_written(
    written: dict[str, tuple[Package, ...]], headers: dict[str, tuple[Package, ...]]
) -> None:
    in_order = [
        {name: tuple(sorted(entries, key=lambda package: package.name)) for name, entries in each.items()}
        for each in (written, headers)
    ]
    assert lock.parse(lock.format_lock(lock.Lock(written, headers))) == lock.Lock(*in_order)


@pytest.mark.parametrize(
    ("depends", "common"),
    [
        ("linux-headers-6.1.0-56-common (= 6.1.192-2), linux-kbuild-6.1", "linux-headers-6.1.0-56-common"),
        ("linux-base, linux-headers-6.12.117+deb13-common-rt (= 1)", "linux-headers-6.12.117+deb13-common-rt"),
        ("gcc-14-for-host,linux-headers-7.3.4+deb13-common", "linux-headers-7.3.4+deb13-common"),
        ("linux-headers-6.1.0-56-amd64 (= 6.1.192-2)", ""),
        ("", ""),
    ],
)
def test_what_flavours_share_comes_from_what_headers_depend_on(depends: str, common: str) -> None:
    assert lock.common_headers(Package("linux-headers-6.1.0-56-amd64", "1", "0", 1, depends)) == common


@pytest.mark.parametrize(
    "text",
    ["[[kernel", '[[kernel."6.1"]]\nname = "a"', "[[other.x]]", '[[kernel."6.1"]]\nurl = "x"', "kernel = 1"],
)
def test_what_is_no_lock_is_one_line(text: str) -> None:
    with pytest.raises(ManifestError, match=r"^kernels\.lock\.toml: [^\n]+$"):
        lock.parse(text)


@pytest.mark.parametrize(
    ("series", "flavour", "name", "matches"),
    [
        ("6.1", "amd64", "linux-image-6.1.0-56-amd64", True),
        ("6.1", "amd64", "linux-image-6.1.0-56-amd64-unsigned", False),
        ("6.1", "amd64", "linux-image-6.1.0-56-amd64-dbg", False),
        ("6.1", "amd64", "linux-image-6.1.0-56-cloud-amd64", False),
        ("6.1", "amd64", "linux-image-6.12.94+deb13-amd64", False),
        ("6.12", "rt-amd64", "linux-image-6.12.94+deb13-rt-amd64", True),
        ("6.12", "amd64", "linux-image-6.12.94+deb13-rt-amd64", False),
        ("7.3", "amd64", "linux-image-7.3.1+deb13.1-amd64", True),
    ],
)
def test_a_series_has_its_own_packages_only(series: str, flavour: str, name: str, *, matches: bool) -> None:
    assert bool(re.fullmatch(lock.image_pattern(series, flavour), name)) == matches


def test_newer_is_a_matter_of_numbers() -> None:
    names = ["linux-image-6.12.9+deb13-amd64", "linux-image-6.12.117+deb13-amd64", "linux-image-6.12.117+deb13.1-amd64"]
    assert sorted([names[2], names[0], names[1]], key=lock.release_key) == names


def test_the_parts_of_a_split_image_come_from_what_it_depends_on() -> None:
    whole = Package("linux-image-6.1.0-56-amd64", "6.1.1-1", "0", 1, "kmod, linux-base (>= 4.3~)")
    assert lock.parts_of(whole) == [whole.name]
    release = "7.3.1+deb13-amd64"
    depends = f"kmod, linux-base-{release} (= 7.3.1-1), linux-binary-{release} (= 1), linux-modules-{release}"
    split = Package(f"linux-image-{release}", "7.3.1-1", "0", 1, depends)
    names = [f"linux-{part}-{release}" for part in ("image", "base", "binary", "modules")]
    assert lock.parts_of(split) == names


def test_stanzas_become_packages() -> None:
    text = "Package: a\nVersion: 1\nDescription: x\n y: z\nDepends: b (>= 1)\nSHA256: ff\nSize: 12\n\nPackage: c\n"
    text += "Version: 2\nSHA256: ee\nSize: 3\n\n"
    assert parse_packages(text) == (Package("a", "1", "ff", 12, "b (>= 1)"), Package("c", "2", "ee", 3))
