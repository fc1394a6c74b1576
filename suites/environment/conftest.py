"""What the tests of a program's surroundings share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.pytest.refusal import refused

__all__ = ["refused"]


@pytest.fixture
def programs() -> Iterator[dict[str, steps.Program]]:
    """Load one program for each kind of hook."""
    with steps.loaded(steps.object_path("fixtures/hooks"), *_NAMES) as bpf_object:
        yield {name.removeprefix("hook_"): program for name, program in bpf_object.programs.items()}


_NAMES = ("hook_socket_filter", "hook_kprobe", "hook_tracepoint", "hook_raw_tracepoint", "hook_fentry")
