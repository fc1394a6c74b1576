"""What bcc has compiled is kept: what is loaded is what it compiles."""

from __future__ import annotations

from dataclasses import replace

from kernel_matrix.guest.bpf.loaders import Loader, bcc
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.guest.pytest.marks import with_loaders

pytestmark = with_loaders("bcc")


def test_what_is_loaded_is_what_bcc_compiles_here(loader: Loader) -> None:
    """To the byte, but for the maps' descriptors; with maps of three types in four programs.

    An entry of another source, of other headers or of another compiler would differ.
    """
    path = object_path("kprobe_execve")
    with loader.opened(path) as obj:
        assert isinstance(obj, bcc.Object)
        loaded = obj.compiled
    again = bcc.compiled_anew(path)
    assert replace(again, seconds=loaded.seconds) == loaded
