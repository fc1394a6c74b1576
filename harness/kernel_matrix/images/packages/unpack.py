"""Extract from kernel packages what a guest needs: the kernel, its configuration, a few modules, or the headers."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from kernel_matrix.arch import CURRENT
from kernel_matrix.images.cache import run
from kernel_matrix.shared.errors import ImageError

#: suffixes of compressed modules; modules that are kept are stored uncompressed
_COMPRESSED = (".ko.xz", ".ko.zst", ".ko.gz")
#: what a tree of headers has: the kernel's build includes it everywhere, and bcc looks for it
KCONFIG = "include/linux/kconfig.h"
#: below include: files of make, and headers of device trees
_NO_HEADERS = frozenset({"config", "dt-bindings"})
#: init/version.c
_BANNER = re.compile(rb"Linux version (?P<release>[0-9][!-~]*) \(")


def unpack(debs: Iterable[Path], tree: Path) -> str:
    """Unpack kernel packages of either layout into ``tree``/boot and ``tree``/lib/modules; return the release.

    Up to 6.18 one package has boot/vmlinuz-RELEASE and lib/modules; later kernels have
    usr/lib/modules/RELEASE/vmlinuz in one package, the modules in another, boot/config-RELEASE in a third.
    """
    for deb in debs:
        _unpack(deb, tree, place)
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise ImageError(f"the packages hold {len(kernels)} kernels instead of one")
    return kernels[0].name.removeprefix("vmlinuz-")


def unpack_headers(debs: Iterable[Path], tree: Path) -> None:
    """Unpack header packages into one tree, ``tree``/include and ``tree``/arch.

    One package has the headers that all flavours share, the other those that a flavour's configuration generates.
    """
    for deb in debs:
        _unpack(deb, tree, header_place)
    if not (tree / KCONFIG).is_file():
        raise ImageError(f"the packages of headers hold no {KCONFIG}")


def visit(deb: Path, visitor: Callable[[str, IO[bytes]], None]) -> None:
    """Call ``visitor`` with the name and the content of each regular file of a package; raises ImageError."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    if member.isreg():
                        content = tar.extractfile(member)
                        assert content is not None
                        visitor(member.name, content)
            # read the padding of the last block: dpkg-deb fails unless all of its output is read
            while process.stdout.read(1 << 16):
                pass
        except tarfile.TarError as error:
            raise ImageError(f"{deb.name} is not a package: {error}") from error
        finally:
            process.stdout.close()
        if process.wait():
            raise ImageError(f"{deb.name} is not a package")


def _unpack(deb: Path, tree: Path, place_of: Callable[[str], str | None]) -> None:
    def extract(name: str, content: IO[bytes]) -> None:
        target = place_of(name)
        if target is None:
            return
        path = tree / target
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)

    visit(deb, extract)


def place(member: str) -> str | None:
    """Return the target path of a package's file, None for a file that is not needed."""
    path = PurePosixPath(member.removeprefix("./").removeprefix("usr/"))
    parts = path.parts
    if len(parts) == 2 and parts[0] == "boot" and parts[1].startswith(("vmlinuz-", "config-")):
        return str(path)
    if len(parts) == 4 and parts[:2] == ("lib", "modules") and parts[3] in {"vmlinuz", "config"}:
        return f"boot/{parts[3]}-{parts[2]}"
    return str(path) if len(parts) >= 4 and parts[:2] == ("lib", "modules") else None


def header_place(member: str) -> str | None:
    """Return the target path of a header package's file, None for a file that is not needed."""
    parts = PurePosixPath(member.removeprefix("./")).parts
    if len(parts) < 5 or parts[:2] != ("usr", "src") or not parts[2].startswith("linux-headers-"):
        return None
    path = PurePosixPath(*parts[3:])
    return str(path) if is_header(path) else None


def is_header(path: PurePosixPath) -> bool:
    """Whether a file of a kernel's source, by its path there, is a header for programs of this architecture."""
    if path.parts[0] == "include":
        return path.parts[1] not in _NO_HEADERS
    return path.parts[:3] == ("arch", CURRENT.kernel, "include")


def keep_modules(tree: Path, release: str, names: Iterable[str]) -> None:
    """Delete all modules except the wanted ones and their dependencies, which are stored uncompressed."""
    folder = tree / "lib" / "modules" / release
    depmod(tree, release)
    kept = closure(parse_modules_dep((folder / "modules.dep").read_text()), names)
    for path in sorted(folder.rglob("*.ko*")):
        relative = str(path.relative_to(folder))
        if relative not in kept:
            path.unlink()
        elif path.name.endswith(_COMPRESSED):
            _decompress(path)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    depmod(tree, release)


def depmod(tree: Path, release: str) -> None:
    """Write modules.dep and the other files of depmod."""
    run(["depmod", "--basedir", str(tree), release], f"depmod of {release}")


def parse_modules_dep(text: str) -> dict[str, tuple[str, ...]]:
    """Parse modules.dep: path -> all paths that it depends on."""
    lines = (line.partition(":") for line in text.splitlines() if line)
    return {path: tuple(needed.split()) for path, _, needed in lines}


def module_name(path: str) -> str:
    """Return a module's name as modprobe uses it: without folder and suffix, with underscores for dashes."""
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def closure(depends: Mapping[str, tuple[str, ...]], names: Iterable[str]) -> set[str]:
    """Return the paths of the modules with these names and of their dependencies; ignore names without a module."""
    normalized = {name.replace("-", "_") for name in names}
    kept: set[str] = set()
    pending = [path for path in depends if module_name(path) in normalized]
    while pending:
        path = pending.pop()
        if path not in kept:
            kept.add(path)
            pending += depends.get(path, ())
    return kept


def _decompress(path: Path) -> None:
    if path.suffix == ".xz":
        data = lzma.decompress(path.read_bytes())
        path.with_suffix("").write_bytes(data)
        path.unlink()
    else:
        tool = {".zst": "zstd", ".gz": "gzip"}[path.suffix]
        run([tool, "--decompress", "--quiet", "--rm" if tool == "zstd" else "--force", str(path)], f"unpacking {path}")


def decompressed(path: Path) -> bytes:
    """Return a module's content; the file may become an uncompressed one."""
    if path.name.endswith(_COMPRESSED):
        _decompress(path)
        path = path.with_suffix("")
    return path.read_bytes()


def release_of(kernel: Path) -> str:
    """Return the release of a kernel's file, compressed or not; raises ValueError for any other file.

    A compressed kernel has it in its header, a vmlinux in linux_banner.
    """
    data = kernel.read_bytes()
    if not data.startswith(b"\x7fELF"):
        return CURRENT.kernel_release(data)
    banner = _BANNER.search(data)
    if banner is None:
        raise ValueError("an ELF file, but no kernel: it has no banner")
    return banner["release"].decode()
