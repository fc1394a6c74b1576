"""The client of loader programs: what it sends, and what it makes of every way in which a program can fail."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.loader_support import loader_program
from kernel_matrix.guest.bpf.loader_support.loader_program import LoaderLost, Process, ProgramLoader
from kernel_matrix.guest.bpf.object_file import ObjectFile
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import XdpFlags

_HELLO = 'print(json.dumps({"protocol": 1, "loader": "fake", "version": "1.2.3"}), flush=True)'
#: a program that answers each request with what `answer` returns, and notes the requests in a file
_PROGRAM = """#!{python}
import json, os, sys, time
log = open({log!r}, "a", buffering=1)
{hello}
def answer(request):
    {body}
for line in sys.stdin:
    log.write(line)
    reply = answer(json.loads(line))
    if reply is not None:
        print(reply if isinstance(reply, str) else json.dumps(reply), flush=True)
log.write("end of file\\n")
"""
#: answers as a loader does: every object is 7, every link 3
_LOADER = """results = {"open": {"object": 7, "programs": {}, "maps": {"m": {"key": 4, "value": 2, "entries": 1}}},
        "attach": {"link": 3}, "ring_buffer": {"ring": 5}, "consume": {"records": ["00ff", ""]},
        "get": {"value": "0102"}, "get_each_cpu": {"values": ["01", "02"]}, "keys": {"keys": ["01000000", "00010000"]},
        "test_run": {"verdict": 2, "data": "aa"}}
    return {"id": request["id"], "result": results.get(request["do"], {})}"""

Fake = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Return what writes a loader program and returns its path."""

    def write(body: str = _LOADER, hello: str = _HELLO) -> Path:
        path = tmp_path / "program"
        log = str(tmp_path / "requests")
        path.write_text(_PROGRAM.format(python=sys.executable, log=log, hello=hello, body=body))
        path.chmod(0o755)
        return path

    return write


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_program, "_REPLY", 5.0)
    monkeypatch.setenv("HARNESS_SPEED", "1")


@contextmanager
def _running(path: Path) -> Iterator[Process]:
    process = Process("fake", path)
    try:
        yield process
    finally:
        process.end()


def test_a_request_gets_its_reply(fake: Fake) -> None:
    with _running(fake()) as process:
        assert process.version == "1.2.3"
        assert process.request("get", object=7, map="m", key="00000000") == {"value": "0102"}


def test_a_refusal_is_a_step_error_with_the_library_s_words(fake: Fake) -> None:
    error = '{"stage": "load", "errno": 13, "what": "prog", "message": "no\\\\nway", "log": "0: R1=ctx()"}'
    body = f"return {{'id': request['id'], 'error': json.loads('''{error}''')}}"
    with _running(fake(body)) as process, pytest.raises(StepError) as caught:
        process.request("load", object=1, program=None)
    assert (caught.value.errno, caught.value.stage, caught.value.what) == (errno.EACCES, "load", "prog")
    assert caught.value.log == "fake: no\nway\n0: R1=ctx()"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit(3)", "ended with status 3"),
        ("os.kill(os.getpid(), 9)", "ended with status -9"),
        ("raise RuntimeError('over')", "RuntimeError: over"),
        ("return 'not json'", "wrote no JSON: b'not json'"),
        ("return '[1]'", "wrote no object"),
        ("return {'id': 99, 'result': {}}", 'answered {"id": 99'),
        ("return {'id': None, 'malformed': 'expected value'}", "expected value"),
        ("return {'id': request['id']}", "answered"),
        ("return {'id': request['id'], 'result': 5}", "answered"),
        ("return {'id': request['id'], 'error': {'stage': 'load'}}", "answered with the error"),
        (
            "return {'id': 1, 'error': {'stage': 'dance', 'errno': 1, 'what': '', 'message': '', 'log': ''}}",
            "names the stage 'dance'",
        ),
    ],
)
def test_a_program_that_breaks_the_protocol_is_lost_and_reaped(body: str, why: str, fake: Fake) -> None:
    with _running(fake(body)) as process:
        with pytest.raises(LoaderLost) as caught:
            process.request("open", path="x", max_entries={})
        assert why in str(caught.value)
        assert str(caught.value).startswith("fake: open: its program ")
        assert not process.alive
        with pytest.raises(LoaderLost, match="its program is gone"):
            process.request("open", path="x", max_entries={})


@pytest.mark.parametrize("stops", ["time.sleep(600)", "sys.stdout.write('half'); sys.stdout.flush(); time.sleep(600)"])
def test_a_program_that_hangs_is_killed_at_its_limit(stops: str, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    with _running(fake(stops)) as process:
        monkeypatch.setattr(loader_program, "_REPLY", 0.2)
        with pytest.raises(LoaderLost, match="gave no reply within"):
            process.request("open", path="x", max_entries={})
        assert not process.alive


def test_a_program_that_reads_nothing_is_killed_at_its_limit(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request larger than the pipe waits for its reader."""
    with _running(fake(hello=f"{_HELLO}\ntime.sleep(600)")) as process:
        monkeypatch.setattr(loader_program, "_REPLY", 0.2)
        with pytest.raises(LoaderLost, match="took no request within"):
            process.request("put", value="00" * (1 << 20))


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        (
            'print(json.dumps({"protocol": 2, "loader": "fake", "version": "1"}), flush=True)',
            "speaks protocol 2, not 1",
        ),
        ('print(json.dumps({"protocol": 1, "loader": "other", "version": "1"}), flush=True)', "is another program"),
        ('print(json.dumps({"protocol": 1, "loader": "fake"}), flush=True)', "is another program"),
        ('print("hello", flush=True)', "wrote no JSON"),
        ("sys.exit('no libc')", "no libc"),
    ],
)
def test_a_program_of_another_kind_is_refused_at_its_first_line(hello: str, why: str, fake: Fake) -> None:
    with pytest.raises(LoaderLost) as caught:
        Process("fake", fake(hello=hello))
    assert why in str(caught.value)


def test_a_missing_program_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LoaderLost, match=r"^fake: its program is not in this guest: "):
        Process("fake", tmp_path / "none")
    (tmp_path / "text").write_text("")
    with pytest.raises(LoaderLost, match=r"^fake: .*/text: Permission denied$"):
        Process("fake", tmp_path / "text")


def test_the_end_is_an_end_of_file(fake: Fake, tmp_path: Path) -> None:
    with _running(fake()):
        pass
    assert (tmp_path / "requests").read_text() == "end of file\n"


def test_a_fork_may_not_use_its_parent_s_program(fake: Fake) -> None:
    """Two processes that write requests would read each other's replies."""
    with _running(fake()) as process:
        child = os.fork()
        if child == 0:
            try:
                process.request("get")
            except RuntimeError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def loader(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProgramLoader]:
    """Return a loader with the fake program, for a file of one program of each kind."""
    sections = {"a": "kprobe/do_x", "b": "tracepoint/syscalls/sys_enter_y", "c": "xdp", "d": "kprobe"}

    @contextmanager
    def file(_: Path) -> Iterator[ObjectFile]:
        yield ObjectFile(sections, None)  # type: ignore[arg-type]

    monkeypatch.setattr(loader_program, "object_file", file)
    made = ProgramLoader("fake", fake())
    yield made
    made.close()


def _requests(tmp_path: Path) -> list[str]:
    return (tmp_path / "requests").read_text().splitlines()


def test_an_object_is_opened_loaded_used_and_closed(loader: ProgramLoader, tmp_path: Path) -> None:
    with loader.opened(Path("/x.bpf.o"), max_entries={"m": 3}) as obj:
        m = obj.map("m")
        assert m.get(1) == b"\x01\x02"
        assert m.get_each_cpu(0) == (b"\x01", b"\x02")
        m.put(258, b"\xff")
        assert list(m.keys()) == [1, 256]
        assert obj.ring_buffer("m").consume() == [b"\x00\xff", b""]
        assert obj.test_run("c", b"\x01") == (2, b"\xaa")
        with obj.attach("a", "b"):
            pass
        with pytest.raises(KeyError, match="no map none"):
            obj.map("none")
    seen = _requests(tmp_path)
    assert seen[0] == '{"id": 1, "do": "open", "path": "/x.bpf.o", "max_entries": {"m": 3}}'
    assert seen[1] == '{"id": 2, "do": "load", "object": 7, "program": null}'
    assert '"do": "put", "object": 7, "map": "m", "key": "02010000", "value": "ff"' in seen[4]
    attached = '"do": "attach", "object": 7, "program": "{}", "target": {}'
    assert attached.format("a", '{"kprobe": "do_x"}') in seen[9]
    target = '{"tracepoint": {"category": "syscalls", "name": "sys_enter_y"}}'
    assert attached.format("b", target) in seen[10]
    assert [line for line in seen if '"detach"' in line] == seen[11:13]
    assert seen[-1] == '{"id": 14, "do": "close", "object": 7}'


def test_an_interface_is_attached_in_the_thread_s_namespace(loader: ProgramLoader, tmp_path: Path) -> None:
    with loader.opened(Path("x")) as obj:
        with obj.attach_xdp("c", 3, XdpFlags.NONE):
            pass
        # as if this thread had entered another one since the program was started
        loader.process.namespace = -1
        with obj.attach_xdp("c", 3, XdpFlags.GENERIC):
            pass
    assert '{"xdp": {"ifindex": 3, "mode": "default", "netns": null}}' in str(_requests(tmp_path))
    pid = os.getpid()
    assert f'{{"xdp": {{"ifindex": 3, "mode": "generic", "netns": "/proc/{pid}/task/{pid}/ns/net"}}}}' in str(
        _requests(tmp_path)
    )


@pytest.mark.parametrize("name", ["c", "d"])
def test_a_section_without_a_target_is_refused(name: str, loader: ProgramLoader) -> None:
    with loader.opened(Path("x")) as obj, pytest.raises(StepError, match="names no target") as caught:
        obj.attach(name)
    assert caught.value.stage == "attach"


def test_the_program_starts_once_and_again_after_it_was_killed(loader: ProgramLoader) -> None:
    with loader.opened(Path("x")):
        first = loader.process.pid
    with loader.opened(Path("x")):
        assert loader.process.pid == first
        os.kill(first, signal.SIGKILL)
        loader.process.kill()
    with loader.opened(Path("x")):
        assert loader.process.pid != first


def test_a_test_that_kills_the_program_gets_its_own_error(loader: ProgramLoader) -> None:
    """The clean-up of what the program held does not hide it."""
    with loader.opened(Path("x")) as obj, obj.attach("a"):
        m = obj.map("m")
        loader.process.kill()
        with pytest.raises(LoaderLost, match="get: its program is gone"):
            m.get(0)


def test_what_is_no_object_is_the_program_s_refusal(fake: Fake, tmp_path: Path) -> None:
    """Not that of libbpf, which reads the file's description."""
    error = {"stage": "open", "errno": 0, "what": "x", "message": "not an ELF file", "log": ""}
    made = ProgramLoader("fake", fake(f"return {{'id': request['id'], 'error': {error}}}"))
    with closing(made), pytest.raises(StepError) as caught, made.opened(tmp_path / "missing"):
        pass
    assert (caught.value.errno, caught.value.log) == (0, "fake: not an ELF file")


def test_an_object_that_only_the_program_opens_is_closed(
    loader: ProgramLoader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """libbpf refuses its description: the program keeps nothing."""

    def file(path: Path) -> AbstractContextManager[ObjectFile]:
        raise StepError(errno.EINVAL, "open", path.name)

    monkeypatch.setattr(loader_program, "object_file", file)
    with pytest.raises(StepError, match="x: "), loader.opened(Path("x")):
        pass
    assert [json.loads(line)["do"] for line in _requests(tmp_path)] == ["open", "close"]
