"""From kernel packages to a kernel, its configuration and a few modules."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.images.packages import unpack
from kernel_matrix.shared.errors import ImageError

RELEASE = "7.3.1+deb13-amd64"
OLD = {
    f"./boot/vmlinuz-{RELEASE}": b"kernel",
    f"./boot/config-{RELEASE}": b"CONFIG_BPF=y",
    f"./boot/System.map-{RELEASE}": b"",
    f"./usr/lib/modules/{RELEASE}/kernel/net/veth.ko.xz": lzma.compress(b"module"),
    f"./usr/lib/modules/{RELEASE}/modules.builtin": b"",
    "./usr/share/doc/linux/copyright": b"",
}
NEW = {
    f"./usr/lib/modules/{RELEASE}/vmlinuz": b"kernel",
    f"./usr/lib/modules/{RELEASE}/config": b"CONFIG_BPF=y",
    f"./usr/lib/modules/{RELEASE}/kernel/net/veth.ko.xz": lzma.compress(b"module"),
    f"./usr/lib/modules/{RELEASE}/modules.builtin": b"",
}


def deb(path: Path, members: dict[str, bytes]) -> Path:
    """Write a package (deb(5)): an ar archive of debian-binary, control and data."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w:xz"):
        pass
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": control.getvalue(), "data.tar.xz": buffer.getvalue()}
    data = b"!<arch>\n"
    for name, content in parts.items():
        data += f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(content):<10}`\n".encode() + content
        data += b"\n" * (len(content) % 2)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("members", [OLD, NEW], ids=["before 7", "since 7"])
def test_both_layouts_end_at_the_same_files(tmp_path: Path, members: dict[str, bytes]) -> None:
    halves = [dict(list(members.items())[:2]), dict(list(members.items())[2:])]
    debs = [deb(tmp_path / f"{number}.deb", half) for number, half in enumerate(halves)]
    tree = tmp_path / "tree"
    assert unpack.unpack(debs, tree) == RELEASE
    assert {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()} == {
        f"boot/vmlinuz-{RELEASE}",
        f"boot/config-{RELEASE}",
        f"lib/modules/{RELEASE}/kernel/net/veth.ko.xz",
        f"lib/modules/{RELEASE}/modules.builtin",
    }
    assert (tree / "boot" / f"vmlinuz-{RELEASE}").read_bytes() == b"kernel"


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_what_is_no_package_is_named(tmp_path: Path, cut: int) -> None:
    path = deb(tmp_path / "linux.deb", OLD)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ImageError, match=r"^linux\.deb is not a package"):
        unpack.unpack([path], tmp_path / "tree")


def test_packages_without_a_kernel_are_an_error(tmp_path: Path) -> None:
    path = deb(tmp_path / "linux.deb", {"./usr/share/doc/x": b""})
    with pytest.raises(ImageError, match=r"^the packages hold 0 kernels instead of one$"):
        unpack.unpack([path], tmp_path / "tree")


def test_headers_of_both_packages_make_one_tree(tmp_path: Path) -> None:
    shared, own = f"./usr/src/linux-headers-{RELEASE}-common", f"./usr/src/linux-headers-{RELEASE}"
    members = [
        {
            f"{shared}/include/linux/kconfig.h": b"shared",
            f"{shared}/arch/x86/include/asm/ptrace.h": b"",
            f"{shared}/arch/arm64/include/asm/ptrace.h": b"",
            f"{shared}/arch/x86/Makefile": b"",
            f"{shared}/include/dt-bindings/x.h": b"",
            f"{shared}/scripts/x": b"",
            "./usr/share/doc/linux/copyright": b"",
        },
        {
            f"{own}/include/generated/autoconf.h": b"own",
            f"{own}/include/config/BPF": b"",
            f"{own}/arch/x86/include/generated/uapi/asm/types.h": b"",
            f"{own}/Makefile": b"",
        },
    ]
    debs = [deb(tmp_path / f"{number}.deb", each) for number, each in enumerate(members)]
    tree = tmp_path / "tree"
    unpack.unpack_headers(debs, tree)
    assert {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()} == {
        "include/linux/kconfig.h",
        "include/generated/autoconf.h",
        "arch/x86/include/asm/ptrace.h",
        "arch/x86/include/generated/uapi/asm/types.h",
    }
    with pytest.raises(ImageError, match=r"^the packages of headers hold no include/linux/kconfig\.h$"):
        unpack.unpack_headers(debs[1:], tmp_path / "other")


def test_modules_are_kept_with_what_they_need() -> None:
    dep = "net/veth.ko.xz: net/ptr-ring.ko.xz core/base.ko\nnet/ptr-ring.ko.xz: core/base.ko\ncore/base.ko:\nx.ko:\n"
    modules = unpack.closure(unpack.parse_modules_dep(dep), ["veth", "not-there"])
    assert modules == {"net/veth.ko.xz", "net/ptr-ring.ko.xz", "core/base.ko"}
    # modprobe takes both spellings of a name
    both = {"net/ptr-ring.ko.xz", "core/base.ko"}
    assert unpack.closure(unpack.parse_modules_dep(dep), ["ptr_ring"]) == both
    assert unpack.closure(unpack.parse_modules_dep(dep), ["ptr-ring"]) == both


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef")).map(tuple)),
    st.sets(st.sampled_from("abcdef")),
)
def test_a_closure_is_closed_and_no_larger(needs: dict[str, tuple[str, ...]], wanted: set[str]) -> None:
    depends = {f"{name}.ko": tuple(f"{other}.ko" for other in others) for name, others in needs.items()}
    kept = unpack.closure(depends, wanted)
    start = {path for path in depends if path.removesuffix(".ko") in wanted}
    assert start <= kept
    for path in kept:
        assert set(depends.get(path, ())) <= kept
        assert path in start or any(path in depends.get(other, ()) for other in kept)


def test_a_tool_that_dies_at_the_end_of_a_package_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(f"./boot/vmlinuz-{RELEASE}"))
    tool = tmp_path / "dpkg-deb"
    tool.write_text(f"#!/bin/sh\ncat {tmp_path}/data.tar; kill -PIPE $$\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ImageError, match=r"^x\.deb is not a package$"):
        unpack.unpack([tmp_path / "x.deb"], tmp_path / "tree")


def bzimage(version: bytes, magic: bytes = b"HdrS") -> bytes:
    """Lay out the header (boot.rst): HdrS at 0x202, at 0x20e where the version is, less 0x200."""
    head = bytearray(0x4000)
    head[0x202:0x206] = magic
    head[0x20E:0x210] = (0x3000 - 0x200).to_bytes(2, "little")
    head[0x3000 : 0x3000 + len(version)] = version
    return bytes(head)


def test_a_kernel_of_ones_own_says_its_release(tmp_path: Path) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(bzimage(b"6.18.2-mine (me@here) #1 SMP\0"))
    assert unpack.release_of(path) == "6.18.2-mine"


@pytest.mark.parametrize("content", [b"", b"MZ", bzimage(b""), bzimage(b"6.1", b"HdrX")])
def test_what_is_no_kernel_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^not a bzImage: no (HdrS|version)"):
        unpack.release_of(path)


def test_an_uncompressed_kernel_names_its_release_in_its_banner(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(b"\x7fELF" + bytes(100) + b"Linux version %s\0Linux version 6.18.0-rc1+ (me@here) (gcc) #1\0")
    assert unpack.release_of(kernel) == "6.18.0-rc1+"
    kernel.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(ValueError, match="no banner"):
        unpack.release_of(kernel)
