"""From kernel packages to what a guest needs of them: the kernel, its configuration and a few modules."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from kernel_matrix.arch import CURRENT
from kernel_matrix.images.cache import run
from kernel_matrix.shared.errors import ImageError

#: compressed modules by their ending; kept ones are stored uncompressed
_COMPRESSED = (".ko.xz", ".ko.zst", ".ko.gz")
#: init/version.c
_BANNER = re.compile(rb"Linux version (?P<release>[0-9][!-~]*) \(")


def unpack(debs: Iterable[Path], tree: Path) -> str:
    """Unpack kernel packages of either layout into ``tree``/boot and ``tree``/lib/modules; return the release.

    Up to 6.18 one package holds boot/vmlinuz-RELEASE and lib/modules; later ones have
    usr/lib/modules/RELEASE/vmlinuz in one package, the modules in another, boot/config-RELEASE in a third.
    """
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                    _extract(tar, tree)
                # what fills its last block; the package's tool ends well only when all of it is read
                while process.stdout.read(1 << 16):
                    pass
            except tarfile.TarError as error:
                raise ImageError(f"{deb.name} is not a package: {error}") from error
            finally:
                process.stdout.close()
            if process.wait():
                raise ImageError(f"{deb.name} is not a package")
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise ImageError(f"the packages hold {len(kernels)} kernels instead of one")
    return kernels[0].name.removeprefix("vmlinuz-")


def _extract(tar: tarfile.TarFile, tree: Path) -> None:
    for member in tar:
        target = place(member.name)
        if target is None or not member.isreg():
            continue
        path = tree / target
        path.parent.mkdir(parents=True, exist_ok=True)
        content = tar.extractfile(member)
        assert content is not None
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)


def place(member: str) -> str | None:
    """Return where a package's file goes, None for what is not wanted."""
    path = PurePosixPath(member.removeprefix("./").removeprefix("usr/"))
    parts = path.parts
    if len(parts) == 2 and parts[0] == "boot" and parts[1].startswith(("vmlinuz-", "config-")):
        return str(path)
    if len(parts) == 4 and parts[:2] == ("lib", "modules") and parts[3] in {"vmlinuz", "config"}:
        return f"boot/{parts[3]}-{parts[2]}"
    return str(path) if len(parts) >= 4 and parts[:2] == ("lib", "modules") else None


def keep_modules(tree: Path, release: str, wanted: Iterable[str]) -> None:
    """Delete all modules but the wanted ones and what they depend on; store those uncompressed."""
    folder = tree / "lib" / "modules" / release
    depmod(tree, release)
    kept = closure(parse_modules_dep((folder / "modules.dep").read_text()), wanted)
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
    """Write modules.dep and its siblings."""
    run(["depmod", "--basedir", str(tree), release], f"depmod of {release}")


def parse_modules_dep(text: str) -> dict[str, tuple[str, ...]]:
    """Read modules.dep: path -> the paths it depends on, all of them."""
    lines = (line.partition(":") for line in text.splitlines() if line)
    return {path: tuple(needed.split()) for path, _, needed in lines}


def module_name(path: str) -> str:
    """Return a module's name as modprobe knows it: no folder, no ending, underscores for dashes."""
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def closure(depends: Mapping[str, tuple[str, ...]], wanted: Iterable[str]) -> set[str]:
    """Return the paths of the wanted modules and of all they depend on; names without a module are passed over."""
    names = {name.replace("-", "_") for name in wanted}
    kept: set[str] = set()
    todo = [path for path in depends if module_name(path) in names]
    while todo:
        path = todo.pop()
        if path not in kept:
            kept.add(path)
            todo += depends.get(path, ())
    return kept


def _decompress(path: Path) -> None:
    if path.suffix == ".xz":
        data = lzma.decompress(path.read_bytes())
        path.with_suffix("").write_bytes(data)
        path.unlink()
    else:
        tool = {".zst": "zstd", ".gz": "gzip"}[path.suffix]
        run([tool, "--decompress", "--quiet", "--rm" if tool == "zstd" else "--force", str(path)], f"unpacking {path}")


def release_of(kernel: Path) -> str:
    """Return the release of a kernel's file, compressed or not; raises ValueError when it is neither.

    A compressed one names it in its header, a vmlinux in linux_banner.
    """
    data = kernel.read_bytes()
    if not data.startswith(b"\x7fELF"):
        return CURRENT.kernel_release(data)
    banner = _BANNER.search(data)
    if banner is None:
        raise ValueError("an ELF file, but no kernel: it has no banner")
    return banner["release"].decode()
