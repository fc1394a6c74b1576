"""Build the guest's root image: Debian by mmdebstrap, the guest's Python packages and the agent, as erofs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shlex
import shutil
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.config.manifest import Manifest, Root
from kernel_matrix.images.cache import building, cache_dir, digest, disk_errors, locked, run, used, working
from kernel_matrix.images.packages import mirror
from kernel_matrix.images.packages.archive import keyring
from kernel_matrix.shared.errors import ImageError
from kernel_matrix.shared.project import CARRIED, HOME
from kernel_matrix.vm.boot_spec import AGENT

#: part of the cache's key: the version of this module's output
_FORMAT = "3"
#: version of the guest's Python, which the suite determines
_PYTHON = "3.13"
_SITE = "usr/lib/python3/dist-packages"
#: folder of the root in which mount.9p finds a copy of virtme-ng's guest tools
_GUEST_TOOLS = "usr/lib/harness/guesttools"
_DISTRIBUTION = "virtme-ng"
_AGENT = Path(__file__).resolve().parent.parent / "guest" / "agent.py"
#: a package of a lock, without its hashes
_LOCKED = re.compile(r"^[\w.-]+==[\w.+!-]+", re.MULTILINE)
#: bytes; a disk with less free space is full
_NO_SPACE = 1 << 20


@dataclass(frozen=True, slots=True)
class RootImage:
    """The guest's root, an erofs image that is never changed."""

    path: Path
    #: sha256 of the image's content
    digest: str


def root_image(manifest: Manifest) -> RootImage:
    """Return the root image, from the cache or built now; raises ImageError.

    The packages are verified by the archive's signatures and are not locked: Debian's stable release keeps their
    behaviour, and the image is named by its content.
    """
    folder = cache_dir() / "roots" / root_key(manifest)
    with locked(folder.name):
        if not folder.exists():
            print("making the guest's root image (once, a minute or two)", file=sys.stderr)
            with building(folder) as place, disk_errors(folder):
                _build(manifest, place)
    image = cached_root(manifest)
    if image is None:
        raise ImageError(f"the root image in {folder} is gone: delete that folder")
    return image


def cached_root(manifest: Manifest) -> RootImage | None:
    """Return the root image if the cache has it."""
    folder = cache_dir() / "roots" / root_key(manifest)
    path = next(folder.glob("root-*.erofs"), None)
    used(folder)
    return RootImage(path, path.stem.removeprefix("root-")) if path else None


def root_key(manifest: Manifest) -> str:
    """Return the name of the root image in the cache, a digest of its sources without the packages."""
    root = manifest.root
    files = [manifest.folder / name for name in [*root.files, root.requirements]]
    own = manifest.guest.requirements
    parts: list[bytes | str] = [path.read_bytes() for path in [*files, _AGENT, *([own] if own else [])]]
    tools = f"{_DISTRIBUTION} {importlib.metadata.version(_DISTRIBUTION)}"
    return digest([_FORMAT, tools, (manifest.folder / "rootfs.toml").read_bytes(), *parts, *manifest.guest.packages])


def _build(manifest: Manifest, place: Path) -> None:
    root = manifest.root
    with working(".root-", place.parent) as work:
        staging = work / "staging"
        _stage(manifest, staging)
        packages = (*root.packages, *manifest.guest.packages)
        command = mmdebstrap(root, packages, mirror.find().uri(root.suite), staging, work / "root.tar")
        try:
            run(command, "making the root", environment=_private(work))
        except ImageError as error:
            # on a full disk, the message depends on which program failed first
            if shutil.disk_usage(work).free < _NO_SPACE:
                raise ImageError(f"no space left for images in {place.parent}") from error
            raise
        tree = work / "tree"
        with tarfile.open(work / "root.tar") as tar:
            # not as an argument (PEP 706), which Debian 12's Python does not know
            tar.extraction_filter = _as_is
            for member in tar:
                # devtmpfs provides the devices; everything belongs to root in the image (--all-root)
                if not (member.ischr() or member.isblk()):
                    tar.extract(_as_is(member), tree)
        image = work / "root.erofs"
        run(
            ["mkfs.erofs", "-T0", "-U00000000-0000-0000-0000-000000000000", "--all-root", str(image), str(tree)],
            "making the root image",
        )
        with image.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        shutil.move(image, place / f"root-{content}.erofs")


def _as_is(member: tarfile.TarInfo, _: str = "") -> tarfile.TarInfo:
    member.uid = member.gid = -1
    member.uname = member.gname = ""
    if member.isdir():
        member.mode = (member.mode or 0o755) | 0o700
    return member


def _private(work: Path) -> dict[str, str]:
    """Return an environment in which mmdebstrap works below ``work``, so that nothing is left when it is killed.

    In a user namespace the environment is unchanged: the users there may not enter our folders.
    """
    if os.geteuid() != 0:
        return dict(os.environ)
    (work / "tmp").mkdir()
    return {**os.environ, "TMPDIR": str(work / "tmp")}


def mmdebstrap(root: Root, packages: Iterable[str], uri: str, staging: Path, target: Path) -> list[str]:
    """Return the command that creates the root's tar; ``staging`` is copied over the installed packages."""
    users = [
        f'echo {shlex.quote(f"{name}:x:{uid}:{uid}::/:/bin/sh")} >>"$1"/etc/passwd; '
        f'echo {shlex.quote(f"{name}:x:{uid}:")} >>"$1"/etc/group'
        for name, uid in root.users.items()
    ]
    drop = ["rm -rf " + " ".join(f'"$1"{pattern}' for pattern in root.drop)]
    # hashes instead of times: mkfs.erofs -T0 would invalidate every time-stamped .pyc
    folders = f"/usr/lib/python3 /usr/lib/python{_PYTHON}"
    compiled = f'chroot "$1" python3 -m compileall -q -f --invalidation-mode unchecked-hash {folders}'
    hooks = [f"sync-in {shlex.quote(str(staging))} /", *users, *drop, compiled]
    return [
        # as root it mounts /proc, /sys and devices into the new root; the namespace unmounts them when it is killed
        *(["unshare", "--mount"] if os.geteuid() == 0 else []),
        "mmdebstrap",
        "--variant=essential",
        f"--include={','.join(packages)}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        *[f"--customize-hook={hook}" for hook in hooks],
        f"--keyring={keyring()}",
        root.suite,
        str(target),
        f"deb {uri} {root.suite} main",
    ]


def _stage(manifest: Manifest, staging: Path) -> None:
    """Create the files that are copied over the packages."""
    lock = manifest.folder / manifest.root.requirements
    what = "fetching the guest's Python packages"
    _install(staging / _SITE, what, "--no-deps", "--require-hashes", "--requirement", str(lock))
    if (own := manifest.guest.requirements) is not None:
        # what is there stays as it is: the guest's pytest must be the host's
        constraints = staging.parent / "constraints.txt"
        constraints.write_text("\n".join(_LOCKED.findall(lock.read_text())))
        _install(staging / _SITE, f"{what} of {own.name}", "--constraint", str(constraints), "--requirement", str(own))
    tools = Path(str(importlib.metadata.distribution(_DISTRIBUTION).locate_file("virtme/guest")))
    shutil.copytree(tools, staging / _GUEST_TOOLS, ignore=shutil.ignore_patterns("__pycache__"))
    root = manifest.root
    sources = {manifest.folder / name: target for name, target in root.files.items()}
    sources[_AGENT] = AGENT
    for source, target in sources.items():
        path = staging / target.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
        path.chmod(0o755)
    for folder in (HOME, CARRIED):
        (staging / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)


def _install(target: Path, what: str, *options: str) -> None:
    """Install Python packages for the guest's Python."""
    run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
            *("--python-version", _PYTHON, "--implementation", "cp", "--only-binary", ":all:"),
            *(*options, "--target", str(target)),
        ],
        what,
    )
