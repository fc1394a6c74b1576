"""What takes long to import is imported where it is used, and no start of a run pays for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: docs/decisions.md, Libraries; the second half is for reports, which are rendered when guests have ended
LATE = {"asyncio", "debian", "elftools", "tomli_w"} | {"jinja2", "junitparser", "rich"}


@pytest.mark.parametrize(
    ("module", "late"),
    [
        ("kernel_matrix.images", LATE),
        ("kernel_matrix.session.starting", LATE),
        # it locks nothing but what it saves
        ("kernel_matrix.relay.serve", LATE | {"filelock"}),
        # pytest imports it on the host, too, for its options
        ("suites.conftest", {"hypothesis", "kernel_matrix.guest.system"}),
    ],
)
def test_a_library_for_rare_work_is_imported_late(module: str, late: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({late!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
