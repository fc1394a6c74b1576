"""What a guest gets of the engine and the project, and what two machines compare before they share a run."""

from __future__ import annotations

import ast
import errno
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import kernel_matrix
from kernel_matrix.relay import payload
from kernel_matrix.relay.payload import Packed, Payload
from kernel_matrix.shared.project import Project
from tests.projects import HERE, ROOT, below

PACKAGE = Path(kernel_matrix.__file__).parent
ENGINE = ".engine/kernel_matrix/"


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def in_tar(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def members(packed: Packed) -> list[tarfile.TarInfo]:
    return in_tar(packed.shared) + in_tar(packed.rest)


def of_project(packed: Packed) -> list[str]:
    return sorted(member.name for member in members(packed) if not member.name.startswith(ENGINE))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write(
        tmp_path,
        *("conftest.py", "suites/test_x.py", "suites/__pycache__/test_x.pyc", "suites/.hidden/x", "suites/x.pyc"),
        *("build/x.bpf.o", "results/latest/results.jsonl", ".git/HEAD", ".nox/harness/bin/python", "venv/lib/x.py"),
        *(".pytest_cache/v/cache/lastfailed", "node_modules/x/x.js"),
        *("baselines/matrix/6.1.json", "baselines/durations.json", "baselines/capabilities.json"),
    )
    return tmp_path


def test_this_repository_carries_its_tests_and_objects(project: Path) -> None:
    uncached = Payload(project, HERE.carry)
    names = ["baselines/capabilities.json", "build/x.bpf.o", "suites/test_x.py"]
    assert of_project(payload.pack(uncached)) == names
    cached = Payload(project, HERE.carry, with_cache=True)
    assert of_project(payload.pack(cached)) == [".pytest_cache/v/cache/lastfailed", *names]


def test_without_a_list_all_visible_source_is_carried(project: Path) -> None:
    """Hidden and generated files are left out."""
    assert of_project(payload.pack(Payload(project))) == [
        "baselines/capabilities.json",
        "baselines/durations.json",
        "baselines/matrix/6.1.json",
        "build/x.bpf.o",
        "conftest.py",
        "suites/test_x.py",
    ]


def test_a_list_is_what_is_carried_and_nothing_else(project: Path) -> None:
    carry = ("suites", "conftest.py", "not-made-yet", ".git")
    assert of_project(payload.pack(Payload(project, carry))) == [".git/HEAD", "conftest.py", "suites/test_x.py"]


def test_the_engine_is_carried_beside_the_project(project: Path) -> None:
    """Its half for guests alone, each file once, whatever is carried of the project."""
    names = [member.name for member in members(payload.pack(Payload(project, ("suites",))))]
    engine = [name.removeprefix(ENGINE) for name in names if name.startswith(ENGINE)]
    assert engine == [str(path) for path in payload.engine_files()]
    assert len(set(engine)) == len(engine)
    beside = {"__init__.py", "plugin.py", "config/__init__.py", "config/options.py"}
    assert {name for name in engine if name.partition("/")[0] not in {"arch", "guest", "shared", "diagnose"}} == beside
    carried = {"guest/agent.py", "guest/pytest/plugin.py", "shared/channel/protocol.py", "diagnose/__init__.py"}
    assert carried <= set(engine)
    assert all(name.endswith((".py", ".h")) for name in engine)
    assert all(name.rpartition(".")[2].isidentifier() for name in payload.guest_modules())
    assert not any("bcc_headers" in name for name in payload.guest_modules())


def test_what_runs_in_a_guest_imports_what_is_carried() -> None:
    carried = {str(path.with_suffix("")).replace("/", ".").removesuffix(".__init__") for path in payload.engine_files()}
    for path in payload.engine_files():
        if path.suffix == ".h" or (path.name == "plugin.py" and len(path.parts) == 1):
            continue  # the plugin's half for the host is imported where there is a matrix
        for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kernel_matrix"):
                module = (node.module or "").partition(".")[2]
                for name in node.names:
                    assert {f"{module}.{name.name}".lstrip("."), module} & carried, f"{path}: {module}.{name.name}"


def test_the_carried_engine_stands_alone(project: Path, tmp_path: Path) -> None:
    """Imported without the rest of it, and without msgspec, which guests have not."""
    with tarfile.open(fileobj=io.BytesIO(payload.pack(Payload(project, ("suites",))).shared)) as tar:
        tar.extractall(tmp_path / "guest", filter="data")
    engine = tmp_path / "guest" / ".engine"
    program = f"""
import sys
sys.modules["msgspec"] = None
sys.path.insert(0, {str(engine)!r})
import kernel_matrix.plugin, kernel_matrix.guest.pytest.plugin, kernel_matrix.guest.probes.capability_table
print(kernel_matrix.plugin.__file__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout.strip(), done.stderr) == (str(engine / "kernel_matrix/plugin.py"), "")


def test_engine_source_in_the_project_is_carried_once() -> None:
    everything = {str(path) for path in payload.project_files(Payload(ROOT))}
    assert "harness/tools/structure.py" in everything
    assert not [path for path in everything if path.startswith("harness/kernel_matrix/")]
    named = {str(path) for path in payload.project_files(Payload(ROOT, ("harness",)))}
    assert named == {path for path in everything if path.startswith("harness/")}


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suites").mkdir()
    scandir = os.scandir

    def refused(path: str) -> object:
        if Path(path).name == "suites":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    for carry in ((), ("suites",)):
        with pytest.raises(PermissionError):
            payload.pack(Payload(tmp_path, carry))


def test_every_clone_is_carried_alike(tmp_path: Path) -> None:
    """A saved worker is found by what it was told: the time and the umask of a checkout are no part of it."""
    packed = []
    for name, mode, time in (("one", 0o644, 1e9), ("other", 0o600, 1.7e9)):
        root = tmp_path / name
        (root / "suites").mkdir(parents=True)
        for file, program in (("suites/test_x.py", 0), ("suites/tool.sh", 0o100)):
            (root / file).write_text("x")
            (root / file).chmod(mode | program)
            os.utime(root / file, (time, time))
        packed.append(payload.pack(Payload(root)))
    assert packed[0] == packed[1]
    by_name = {member.name: member for member in members(packed[0])}
    assert (by_name["suites/test_x.py"].mode, by_name["suites/tool.sh"].mode) == (0o644, 0o755)
    assert {(member.uid, member.gid, member.mtime) for member in by_name.values()} == {(0, 0, 315532800)}


def test_a_folder_of_the_users_own_is_carried_as_it_is(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "own", ".hidden/x", "venv/y", "program")
    (tmp_path / "own" / "program").chmod(0o700)
    packed = members(payload.pack(Payload(project, ("suites",), carried=tmp_path / "own")))
    own = {member.name: member for member in packed if member.name.startswith(".carried")}
    assert {name for name, member in own.items() if member.isfile()} == {
        ".carried/.hidden/x",
        ".carried/venv/y",
        ".carried/program",
    }
    assert own[".carried/program"].mode == 0o700
    assert {(member.uid, member.uname) for member in own.values()} == {(0, "")}


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with sources and kernels of its own, and an engine that can be changed."""
    write(tmp_path, "kernel-matrix.toml", "images/kernels.toml", "bpf/x.bpf.c", "bpf/x.h", "suites/test_x.py")
    write(tmp_path / "package", "guest/agent.py", "remote/hosts.py")
    monkeypatch.setattr(payload, "_PACKAGE", tmp_path / "package")
    root = tmp_path
    return below(root, images=root / "images", sources=root / "bpf", carry=("suites", "build"))


@pytest.mark.parametrize(
    "name",
    [
        *("kernel-matrix.toml", "images/kernels.toml", "images/mount.9p", "bpf/x.bpf.c", "bpf/x.h", "bpf/y.bpf.c"),
        *("suites/test_x.py", "suites/deep/test_y.py", "package/guest/agent.py", "package/remote/hosts.py"),
        "package/guest/new.py",
    ],
)
def test_the_digest_changes_with_what_decides_the_results(whole: Project, name: str) -> None:
    before = payload.digest(whole)
    assert payload.digest(whole) == before
    (whole.root / name).parent.mkdir(parents=True, exist_ok=True)
    (whole.root / name).write_text("changed")
    assert payload.digest(whole) != before


@pytest.mark.parametrize(
    "name",
    [
        *("build/x.bpf.o", "results/latest/matrix.json", "shard-1/matrix.json", "README.md", ".git/HEAD"),
        *("suites/__pycache__/test_x.pyc", "package/guest/__pycache__/agent.pyc", ".pytest_cache/v/cache/lastfailed"),
    ],
)
def test_the_digest_does_not_change_with_what_is_made(whole: Project, name: str) -> None:
    before = payload.digest(whole)
    write(whole.root, name)
    assert payload.digest(whole) == before


def test_the_digest_of_what_was_renamed_is_another(whole: Project) -> None:
    before = payload.digest(whole)
    (whole.root / "suites/test_x.py").rename(whole.root / "suites/test_y.py")
    assert payload.digest(whole) != before


def test_what_all_tests_share_is_carried_apart_from_them(tmp_path: Path) -> None:
    """So that a guest which has it, and has imported it, is one for every edited test."""
    shared = ["conftest.py", "pyproject.toml", "suites/__init__.py", "suites/conftest.py", "suites/helpers.py"]
    rest = ["build/x.bpf.o", "data.toml.txt", "suites/data.json", "suites/test_x.py", "suites/x_test.py"]
    write(tmp_path, *shared, *rest)
    packed = payload.pack(Payload(tmp_path))
    first = [member.name for member in in_tar(packed.shared) if not member.name.startswith(ENGINE)]
    assert (sorted(first), sorted(member.name for member in in_tar(packed.rest))) == (shared, rest)
    for name in rest:
        write(tmp_path, f"{name}.old")
        (tmp_path / name).write_text("changed")
    changed = payload.pack(Payload(tmp_path))
    assert changed.shared == packed.shared
    assert changed.rest != packed.rest


def test_only_modules_of_guests_are_imported_beforehand() -> None:
    modules = payload.guest_modules()
    assert {"kernel_matrix.guest.pytest.plugin", "kernel_matrix.guest.bpf.loaders"} <= set(modules)
    assert "kernel_matrix.guest.agent" not in modules
    assert all(name.split(".")[1] == "guest" for name in modules)


def test_the_loaders_programs_are_carried_beside_the_engine(project: Path, tmp_path: Path) -> None:
    """They are the same for every edit of a test: part of what a worker is saved with."""
    (tmp_path / "built").write_bytes(b"program")
    (tmp_path / "built").chmod(0o755)
    packed = payload.pack(Payload(project, ("suites",), programs={"aya": tmp_path / "built"}))
    (carried,) = [
        member for member in in_tar(packed.shared) if "loaders/aya" in member.name and "bpf" not in member.name
    ]
    assert (carried.name, carried.mode, carried.uid) == (".engine/loaders/aya", 0o755, 0)


@pytest.mark.parametrize(
    ("loaders", "carried"), [(("libbpf",), ("suites",)), (("libbpf", "bcc"), ("suites", "src")), ((), ("suites",))]
)
def test_a_loader_that_compiles_gets_the_sources(
    loaders: tuple[str, ...], carried: tuple[str, ...], tmp_path: Path
) -> None:
    sources = tmp_path / "src"
    on_request = below(tmp_path, carry=("suites",), sources=sources, loaders_on_request=loaders)
    assert payload.of_project(on_request).carry == carried
    assert payload.of_project(below(tmp_path, carry=("suites",), sources=sources, loaders=loaders)).carry == carried
    # everything is carried anyway
    assert payload.of_project(below(tmp_path, sources=sources, loaders=loaders)).carry == ()
