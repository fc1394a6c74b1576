"""How each loader reports what the kernel, or the loader itself, refuses: stage and errno."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.loader_support.loader_program import ProgramLoader
from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import XdpFlags, object_path, xdp_id
from kernel_matrix.guest.pytest.fixtures import Observed
from kernel_matrix.guest.pytest.marks import not_with
from kernel_matrix.guest.pytest.refusal import Refused
from kernel_matrix.guest.system.netns import Veth
from suites.loaders.conftest import FIXTURE, in_words, seen
from suites.loaders.test_paths import XDP_BY_LINK

#: An interface that does not exist is EINVAL for a link (net/core/dev.c, bpf_xdp_link_attach()), ENODEV for a netlink
#: message (net/core/rtnetlink.c, rtnl_setlink()). aya makes a link first, and after EINVAL tries netlink
#: (aya/src/programs/xdp.rs), whose answer it then reports.
#: bcc asks for the interface's name first (if_indextoname(3)).
_NO_INTERFACE = {"cilium": errno.EINVAL, "bcc": errno.ENXIO}
#: no errno: the loader refuses before it asks the kernel
ITSELF = 0


def of(loader: Loader, numbers: Mapping[str, int], default: int) -> int:
    """Return the errno of a loader that differs from the others."""
    return numbers.get(loader.name, default)


def unknown_to(loader: Loader, symbol: str) -> int:
    """Return the errno of a symbol that the kernel does not have.

    register_kprobe() finds none of that name: ENOENT (kernel/kprobes.c, _kprobe_addr()). bcc takes any errno of the
    perf event for a kernel without such events, tries tracefs (bpf_attach_kprobe()), and reports its errno: EINVAL
    since 6.11, where tracefs looks the symbol up before it registers (9d8616034f16, validate_probe_symbol()). So it is
    asked here.
    """
    if loader.name != "bcc":
        return errno.ENOENT
    # not by Python's "a": it seeks to the end, which this file answers with EINVAL (fs/seq_file.c, seq_lseek())
    events = os.open("/sys/kernel/tracing/kprobe_events", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(events, f"p:kprobes/p_{symbol} {symbol}".encode())
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL}:
            return error.errno
        raise
    finally:
        os.close(events)
    raise AssertionError(f"tracefs took a probe of {symbol}")


def test_an_unknown_function_is_refused(loaded: Object, loader: Loader, refused: Refused, observed: Observed) -> None:
    """At attaching, whatever the loader asks."""
    symbol = "no_such_function"
    with refused(unknown_to(loader, symbol), stage="attach") as refusal:
        loaded.attach_kprobe("loaders_kprobe", symbol)
    observed("refusal: kprobe on an unknown function", in_words(refusal.error))


def test_a_system_call_without_its_prefix(loaded: Object, loader: Loader, refused: Refused, observed: Observed) -> None:
    """The symbol of sys_execve is __x64_sys_execve; cilium/ebpf tries it after ENOENT (link/kprobe.go, kprobe())."""
    name = "refusal: kprobe on `sys_execve`"
    if loader.name == "cilium":
        with loaded.attach_kprobe("loaders_kprobe", "sys_execve"):
            assert seen().events == ("kprobe __x64_sys_execve",)
            observed(name, f"attached: {seen().events[0]}")
    else:
        with refused(unknown_to(loader, "sys_execve"), stage="attach") as refusal:
            loaded.attach_kprobe("loaders_kprobe", "sys_execve")
        observed(name, in_words(refusal.error))


def test_an_unknown_tracepoint_is_enoent(loaded: Object, refused: Refused, observed: Observed) -> None:
    """Every loader reads its number from a file in tracefs, which is not there."""
    with refused(errno.ENOENT, stage="attach") as refusal:
        loaded.attach_tracepoint("loaders_tracepoint", "syscalls", "sys_enter_nothing")
    observed("refusal: unknown tracepoint", in_words(refusal.error))


def test_an_unknown_interface_is_refused(
    loaded: Object, loader: Loader, pair: Veth, refused: Refused, observed: Observed
) -> None:
    """A link's errno is not netlink's; the loader decides which of them its user sees."""
    number = of(loader, _NO_INTERFACE, errno.ENODEV)
    with pair.near.namespace.entered(), refused(number, stage="attach") as refusal:
        loaded.attach_xdp("loaders_xdp", 9999, XdpFlags.NONE)
    observed("refusal: XDP on no interface", in_words(refusal.error))


def test_an_interface_without_native_xdp_refuses_it(
    loaded: Object, refused: Refused, pair: Veth, observed: Observed
) -> None:
    """Loopback's driver has no XDP (net/core/dev.c, dev_xdp_attach()): EOPNOTSUPP by link and by netlink."""
    with pair.near.namespace.entered(), refused(errno.EOPNOTSUPP, stage="attach") as refusal:
        loaded.attach_xdp("loaders_xdp", 1, XdpFlags.NATIVE)
    observed("refusal: XDP native on loopback", in_words(refusal.error))


def test_an_interface_without_native_xdp_is_generic(loaded: Object, pair: Veth, observed: Observed) -> None:
    """Without a mode, the kernel falls back by itself (dev_xdp_mode()); no loader has to."""
    with pair.near.namespace.entered():
        with loaded.attach_xdp("loaders_xdp", 1, XdpFlags.NONE):
            assert xdp_id(1, XdpFlags.GENERIC)
            observed("path: XDP without a mode on loopback", f"{'link' if seen().links else 'netlink'}, generic")
        assert xdp_id(1) == 0


def test_a_second_program_is_refused_or_takes_the_place(
    loaded: Object, loader: Loader, pair: Veth, refused: Refused, observed: Observed
) -> None:
    """Over a link, EBUSY (dev_xdp_attach()).

    Netlink replaces, without a word, unless the message has XDP_FLAGS_UPDATE_IF_NOEXIST: libbpf and bcc send the flags
    that their user names (bcc: bpf_attach_xdp() of libbpf.c).
    """
    index, name = pair.near.index, "refusal: a second XDP program"
    with pair.near.namespace.entered(), loaded.attach_xdp("loaders_xdp", index, XdpFlags.NATIVE):
        first = xdp_id(index)
        if loader.name in XDP_BY_LINK:
            with refused(errno.EBUSY, stage="attach") as refusal:
                loaded.attach_xdp("loaders_xdp_other", index, XdpFlags.NATIVE)
            assert xdp_id(index) == first
            observed(name, in_words(refusal.error))
        else:
            with loaded.attach_xdp("loaders_xdp_other", index, XdpFlags.NATIVE):
                assert xdp_id(index) not in {0, first}
                observed(name, "attached: it replaces the first")


def test_the_verifier_s_refusal_comes_with_its_log(loader: Loader, refused: Refused, observed: Observed) -> None:
    """EACCES, and the log names the read (kernel/bpf/verifier.c, check_packet_access())."""
    with refused(errno.EACCES, stage="load") as refusal, loader.opened(object_path("fixtures/refused")):
        pass
    assert "invalid access to packet" in refusal.log
    observed("refusal: by the verifier", in_words(refusal.error))


_KINDS = {"missing": "no file", "empty": "an empty file", "cut": "a cut file", "text": "a file of text"}
_NO_OBJECTS = {"missing": None, "empty": b"", "cut": b"\x7fELF", "text": b"text" * 100}


@not_with("bcc", reason="bcc compiles C by itself and takes no object")
@pytest.mark.parametrize("kind", _NO_OBJECTS)
def test_what_is_no_object_is_refused_when_opened(
    kind: str, loader: Loader, tmp_path: Path, observed: Observed
) -> None:
    """With the file's name; the errno is a library's own. A program refuses in its own words, not in libbpf's."""
    path, content = tmp_path / "x.bpf.o", _NO_OBJECTS[kind]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StepError, match=r"x\.bpf\.o") as caught, loader.opened(path):
        pass
    assert caught.value.stage == "open"
    if isinstance(loader, ProgramLoader):
        assert caught.value.log.startswith(f"{loader.name}: ")
    observed(f"refusal: {_KINDS[kind]}", in_words(caught.value, tmp_path))


def test_a_map_without_entries_is_refused_when_created(loader: Loader, refused: Refused, observed: Observed) -> None:
    """EINVAL for a hash of no entries (kernel/bpf/hashtab.c, htab_map_alloc_check())."""
    with (
        refused(errno.EINVAL, stage="map_create") as refusal,
        loader.opened(FIXTURE, max_entries={"names": 0}),
    ):
        pass
    observed("refusal: a map without entries", in_words(refusal.error))


def test_a_full_map_refuses_another_entry(loaded: Object, refused: Refused, observed: Observed) -> None:
    """A hash of two entries: E2BIG (kernel/bpf/hashtab.c, alloc_htab_elem())."""
    names = loaded.map("names")
    names.put(1, b"\x01\0\0\0")
    names.put(1 << 40, b"\x02\0\0\0")
    assert (names.get(1), names.get(1 << 40), names.get(2)) == (b"\x01\0\0\0", b"\x02\0\0\0", None)
    assert sorted(names.keys()) == [1, 1 << 40]
    with refused(errno.E2BIG, stage="update") as refusal:
        names.put(2, bytes(4))
    observed("refusal: another entry in a full map", in_words(refusal.error))
