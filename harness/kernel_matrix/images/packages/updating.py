"""Update the lock to an archive's current packages; an archive that fails or is incomplete changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kernel_matrix.config.manifest import Manifest
from kernel_matrix.images import providers
from kernel_matrix.images.packages import lock as locks
from kernel_matrix.images.packages.archive import Package
from kernel_matrix.shared import atomic
from kernel_matrix.shared.errors import ImageError, NotInArchive, NotWholeInArchive


def update_lock(manifest: Manifest) -> list[str]:
    """Rewrite kernels.lock.toml with the newest release of every series; return a line for each change.

    A kernel that the archive lacks is removed and reported. Raises ImageError, and changes nothing, when the mirror
    does not answer for a kernel, or has only a part of a locked kernel.
    """
    path = manifest.folder / locks.NAME
    before = locks.read(path)
    try:
        after, lines = _newest(manifest, before.kernels)
        headers, more = _headers(manifest, after, before.headers)
    except ImageError as error:
        raise ImageError(f"{error}; {locks.NAME} is unchanged") from error
    atomic.write(path, locks.format_lock(locks.Lock(after, headers)))
    return [*lines, *more] or ["the lock is up to date"]


def _newest(
    manifest: Manifest, before: Mapping[str, Sequence[Package]]
) -> tuple[dict[str, tuple[Package, ...]], list[str]]:
    """Return the newest packages of every kernel, and a line for each kernel that has changed or is missing."""
    after: dict[str, tuple[Package, ...]] = {}
    changed: list[str] = []
    #: kernel -> the line about it
    gone: dict[str, str] = {}
    for kernel in manifest.kernels:
        old = before.get(kernel.name, ())
        was = locks.version_of(old)
        try:
            newest = providers.of(manifest, kernel).newest(kernel)
        except NotInArchive as error:
            after_it = "not locked" if kernel.name not in before else f"{was} is no longer locked"
            gone[kernel.name] = f"{error}: {after_it}"
        except NotWholeInArchive as error:
            if kernel.name in before:
                # a mirror that is being synchronised may look the same
                raise ImageError(f"{error}; if it stays so, take kernel {kernel.name} out of the lock") from error
            gone[kernel.name] = f"{error}: not locked"
        else:
            if newest:  # otherwise its provider locks nothing
                after[kernel.name], line = _moved(kernel.name, old, newest)
                changed += line
    if before and not after:
        raise ImageError("the mirror has none of the kernels")
    unknown = [f"{name}: not in the manifest, no longer locked" for name in before if name not in {*after, *gone}]
    return after, [*changed, *gone.values(), *unknown]


def _headers(
    manifest: Manifest, kernels: Mapping[str, Sequence[Package]], before: Mapping[str, Sequence[Package]]
) -> tuple[dict[str, tuple[Package, ...]], list[str]]:
    """Return the packages of the headers of locked kernels, and a line for each kernel that gained or lost them.

    A kernel is locked without headers where the mirror has none.
    """
    after: dict[str, tuple[Package, ...]] = {}
    lines = []
    for kernel in manifest.kernels:
        provider = providers.of(manifest, kernel)
        if kernel.name not in kernels or not isinstance(provider, providers.LocksHeaders):
            continue
        packages = kernels[kernel.name]
        try:
            after[kernel.name] = provider.newest_headers(kernel, packages)
        except NotInArchive as error:
            old = before.get(kernel.name, ())
            if old and locks.version_of(old) == locks.version_of(packages):
                # as for a kernel's own parts: they may be missing until the mirror has been synchronised
                after[kernel.name] = tuple(old)
            elif old:
                lines.append(f"{error}: no longer locked")
        else:
            if kernel.name not in before:
                lines.append(f"{kernel.name}: with headers of {locks.version_of(packages)}")
    return after, lines


def _moved(name: str, old: Sequence[Package], newest: Sequence[Package]) -> tuple[tuple[Package, ...], list[str]]:
    """Return a kernel's packages to lock, and a line if they have changed or the mirror lacks one."""
    was, now = ({package.name: package.sha256 for package in packages} for packages in (old, newest))
    if locks.version_of(old) != locks.version_of(newest):
        return tuple(newest), [f"{name}: {locks.version_of(old)} -> {locks.version_of(newest)}"]
    if lacking := was.keys() - now.keys():
        # such as a configuration that is missing until the mirror has been synchronised
        return tuple(old), [f"{name}: the mirror has no {', '.join(sorted(lacking))} now: the lock keeps it"]
    return tuple(newest), [] if was == now else [f"{name}: {locks.version_of(newest)} with other packages"]
