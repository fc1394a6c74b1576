"""A file that skips itself."""

from __future__ import annotations

import pytest

pytest.skip("as a whole", allow_module_level=True)
