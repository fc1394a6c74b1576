"""How each loader reports what the kernel, or the loader itself, refuses: stage and errno."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import XdpFlags, object_path, xdp_id
from kernel_matrix.guest.pytest.fixtures import Record
from kernel_matrix.guest.pytest.marks import not_with
from kernel_matrix.guest.pytest.refusal import Refused
from kernel_matrix.guest.system.netns import Veth
from suites.loaders.conftest import FIXTURE
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


def of_tracefs(symbol: str) -> int:
    """Return the errno with which tracefs refuses a probe, 0 when it takes it; bcc's bpf_attach_kprobe() asks so."""
    try:
        with Path("/sys/kernel/tracing/kprobe_events").open("a") as file:
            file.write(f"p:kprobes/p_{symbol} {symbol}\n")
    except OSError as error:
        return error.errno or 0
    return 0


def test_an_unknown_function_is_enoent(loaded: Object, loader: Loader, refused: Refused) -> None:
    """register_kprobe() finds no symbol of that name (kernel/kprobes.c, _kprobe_addr()).

    bcc takes any errno of the perf event for a kernel without such events, tries tracefs, and reports its errno: EINVAL
    since 6.11, where tracefs looks the symbol up before it registers (9d8616034f16, validate_probe_symbol()).
    """
    symbol = "no_such_function"
    expected = of_tracefs(symbol) if loader.name == "bcc" else errno.ENOENT
    assert expected in {errno.ENOENT, errno.EINVAL}
    with refused(expected, stage="attach"):
        loaded.attach_kprobe("loaders_kprobe", symbol)


def test_an_unknown_tracepoint_is_enoent(loaded: Object, refused: Refused) -> None:
    """Every loader reads its number from a file in tracefs, which is not there."""
    with refused(errno.ENOENT, stage="attach"):
        loaded.attach_tracepoint("loaders_tracepoint", "syscalls", "sys_enter_nothing")


def test_an_unknown_interface_is_refused(loaded: Object, loader: Loader, pair: Veth, refused: Refused) -> None:
    """A link's errno is not netlink's; the loader decides which of them its user sees."""
    with pair.near.namespace.entered(), refused(of(loader, _NO_INTERFACE, errno.ENODEV), stage="attach"):
        loaded.attach_xdp("loaders_xdp", 9999, XdpFlags.NONE)


def test_an_interface_without_native_xdp_refuses_it(loaded: Object, refused: Refused, pair: Veth) -> None:
    """Loopback's driver has no XDP (net/core/dev.c, dev_xdp_attach()): EOPNOTSUPP by link and by netlink."""
    with pair.near.namespace.entered(), refused(errno.EOPNOTSUPP, stage="attach"):
        loaded.attach_xdp("loaders_xdp", 1, XdpFlags.NATIVE)


def test_an_interface_without_native_xdp_is_generic(loaded: Object, pair: Veth) -> None:
    """Without a mode, the kernel falls back by itself (dev_xdp_mode()); no loader has to."""
    with pair.near.namespace.entered():
        with loaded.attach_xdp("loaders_xdp", 1, XdpFlags.NONE):
            assert xdp_id(1, XdpFlags.GENERIC)
        assert xdp_id(1) == 0


def test_a_second_program_is_refused_or_takes_the_place(
    loaded: Object, loader: Loader, pair: Veth, refused: Refused
) -> None:
    """Over a link, EBUSY (dev_xdp_attach()).

    Netlink replaces, without a word, unless the message has XDP_FLAGS_UPDATE_IF_NOEXIST: libbpf and bcc send the flags
    that their user names (bcc: bpf_attach_xdp() of libbpf.c).
    """
    index = pair.near.index
    with pair.near.namespace.entered(), loaded.attach_xdp("loaders_xdp", index, XdpFlags.NATIVE):
        first = xdp_id(index)
        if loader.name in XDP_BY_LINK:
            with refused(errno.EBUSY, stage="attach"):
                loaded.attach_xdp("loaders_xdp_other", index, XdpFlags.NATIVE)
            assert xdp_id(index) == first
        else:
            with loaded.attach_xdp("loaders_xdp_other", index, XdpFlags.NATIVE):
                assert xdp_id(index) not in {0, first}


def test_the_verifier_s_refusal_comes_with_its_log(loader: Loader, refused: Refused, record: Record) -> None:
    """EACCES, and the log names the read (kernel/bpf/verifier.c, check_packet_access())."""
    with refused(errno.EACCES, stage="load") as refusal, loader.opened(object_path("fixtures/refused")):
        pass
    assert "invalid access to packet" in refusal.log
    record("loader_words", {loader.name: refusal.log.partition("\n")[0]})


_NO_OBJECTS = {"missing": None, "empty": b"", "cut": b"\x7fELF", "text": b"text" * 100}


@not_with("bcc", reason="bcc compiles C by itself and takes no object")
@pytest.mark.parametrize("kind", _NO_OBJECTS)
def test_what_is_no_object_is_refused_when_opened(kind: str, loader: Loader, tmp_path: Path) -> None:
    """With the file's name; the errno is a library's own."""
    path, content = tmp_path / "x.bpf.o", _NO_OBJECTS[kind]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StepError, match=r"x\.bpf\.o") as caught, loader.opened(path):
        pass
    assert caught.value.stage == "open"


def test_a_map_without_entries_is_refused_when_created(loader: Loader, refused: Refused) -> None:
    """EINVAL for a hash of no entries (kernel/bpf/hashtab.c, htab_map_alloc_check())."""
    with (
        refused(errno.EINVAL, stage="map_create"),
        loader.opened(FIXTURE, max_entries={"names": 0}),
    ):
        pass


def test_a_full_map_refuses_another_entry(loaded: Object, refused: Refused) -> None:
    """A hash of two entries: E2BIG (kernel/bpf/hashtab.c, alloc_htab_elem())."""
    names = loaded.map("names")
    names.put(1, b"\x01\0\0\0")
    names.put(1 << 40, b"\x02\0\0\0")
    assert (names.get(1), names.get(1 << 40), names.get(2)) == (b"\x01\0\0\0", b"\x02\0\0\0", None)
    assert sorted(names.keys()) == [1, 1 << 40]
    with refused(errno.E2BIG, stage="update"):
        names.put(2, bytes(4))
