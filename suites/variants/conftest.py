"""What the tests of kernel command lines share."""

from __future__ import annotations

from kernel_matrix.guest.pytest.refusal import refused

__all__ = ["refused"]
