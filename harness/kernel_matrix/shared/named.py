"""Import objects that a configuration names: ``package.module:name``, from the project's folder or a package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from kernel_matrix.shared.errors import ManifestError


def imported(reference: str, folder: Path, where: str, *, position: int = 0) -> Any:  # noqa: ANN401 - whatever has that name
    """Import the object that ``reference`` names; the folder is searched, too, at that position of the path.

    Raises ManifestError, whose line begins with ``where`` and the reference.
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise ManifestError(f"{where} {reference!r} is no package.module:name")
    sys.path.insert(position, str(folder))
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ManifestError(f"{where} {reference}: {error}") from error
    finally:
        sys.path.remove(str(folder))
