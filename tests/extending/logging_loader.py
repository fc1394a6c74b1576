"""A loader outside the engine: libbpf's, with a log line for each object and each attachment."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kernel_matrix.guest.bpf.loaders import Loader, Object

LOG = logging.getLogger(__name__)


class LoggingObject:
    """As in `kernel_matrix.guest.bpf.loaders.Object`: all that it does not log is passed on."""

    def __init__(self, inner: Object, path: Path) -> None:
        self._inner = inner
        self._path = path

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def attach(self, *names: str) -> ExitStack:
        LOG.info("attach %s of %s", " ".join(names) or "all programs", self._path.name)
        return self._inner.attach(*names)


class LoggingLoader:
    """As in `kernel_matrix.guest.bpf.loaders.Loader`."""

    def __init__(self, inner: Loader) -> None:
        self._inner = inner
        self.name = f"logging-{inner.name}"

    @contextmanager
    def opened(self, path: Path, *, max_entries: dict[str, int] | None = None) -> Iterator[Any]:
        LOG.info("load %s with %s", path.name, self._inner.name)
        with self._inner.opened(path, max_entries=max_entries) as obj:
            yield LoggingObject(obj, path)
