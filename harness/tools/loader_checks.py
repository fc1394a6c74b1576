"""Check the sources of the loaders' programs with the tools of their languages (``nox -s lint``)."""

from __future__ import annotations

import sys
from pathlib import Path

from kernel_matrix.objects import loader_programs
from kernel_matrix.shared.errors import BuildError


def main(folder: Path) -> int:
    """Print a line for each check; copies and what the tools make of them are kept in ``folder``."""
    try:
        for line in loader_programs.check(folder):
            print(line)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
