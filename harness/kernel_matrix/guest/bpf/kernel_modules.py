"""Load what an object needs of its kernel's modules: those that the host has concluded from it, or the table's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.shared.project import HOME, MODULES, NEEDED

_BROUGHT = HOME / MODULES
_LOADED = Path("/proc/modules")


class ModuleMissing(Exception):
    """A module that the table names cannot be loaded here."""


def lacking() -> frozenset[str]:
    """Return the names of objects that neither the kernel nor a module of it has."""
    return frozenset(name for row in _needed().values() for name in row["lacking"])


@contextmanager
def loaded(path: str, declared: Sequence[str]) -> Iterator[None]:
    """Load what the object with this path needs, and unload it at the end; raises ModuleMissing.

    ``declared``: the modules that the table names; then only these.
    """
    concluded = _needed().get(path, {"modules": []})["modules"]
    before = _newest_first()
    new: list[str] = []
    try:
        for name in dict.fromkeys(module.replace("-", "_") for module in (*concluded, *declared)):
            if name not in before:
                _load(name)
                # modprobe loads what it depends on, too
                new = [module for module in _newest_first() if module not in before]
        yield
    finally:
        for name in new:
            wait_until(partial(_unload, name), f"unloading the module {name}")


def _needed() -> dict[str, Any]:
    path = _BROUGHT / NEEDED
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _newest_first() -> list[str]:
    """Return the modules that are loaded: the kernel lists a module before those that it depends on."""
    # a kernel without modules has no such list
    lines = _LOADED.read_text().splitlines() if _LOADED.exists() else []
    return [line.partition(" ")[0] for line in lines]


def _load(name: str) -> None:
    """Load a module, or find that it is built in; raises ModuleMissing."""
    file = _BROUGHT / f"{name}.ko"
    command = ["/sbin/insmod", str(file)] if file.exists() else ["/sbin/modprobe", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ModuleMissing(f"module {name}: {done.stderr.strip() or done.returncode}")


def _unload(name: str) -> bool:
    """Unload a module; return whether it is gone: what used it may be released a little later."""
    # not modprobe, which knows the modules of the image alone
    return subprocess.run(["/sbin/rmmod", name], capture_output=True, check=False).returncode == 0
