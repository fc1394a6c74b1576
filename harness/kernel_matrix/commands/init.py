"""The command ``init``: write the table of a project of objects, a test as an example, and a workflow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.config import project as projects
from kernel_matrix.shared.errors import ManifestError, reraise

#: elf.h: the machine of BPF, at this offset of an ELF header
_EM_BPF, _MACHINE = (247).to_bytes(2, "little"), 18
#: folders without objects of the project
_LEFT_OUT = frozenset({"node_modules", "venv", "results", "deps"})
#: a file that tells how the objects are made -> the command
_BUILDS = {"Makefile": "make", "Cargo.toml": "cargo build --release", "go.mod": "go generate ./..."}
_TEST = Path("tests", "kernel", "test_objects.py")
_WORKFLOW = Path(".github", "workflows", "kernel-matrix.yml")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a folder has of a project of objects."""

    #: relative, sorted
    objects: tuple[str, ...] = ()
    #: the commands that may make them
    builds: tuple[str, ...] = ()


def run(folder: Path) -> Iterator[str]:
    """Write the files into a folder; yield a line for each. Raises ManifestError where a table is already."""
    if projects.load(folder) is not None:
        raise ManifestError(f"{folder}: has a table already")
    seen = look(folder)
    files = {Path(projects.OWN_FILE): table(seen), _TEST: EXAMPLE, _WORKFLOW: workflow(seen)}
    for name, text in files.items():
        path = folder / name
        if path.exists():
            yield f"{name}: is there already, and stays as it is"
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        yield f"{name}: written"
    if not seen.objects:
        yield "no compiled object was seen: build them, then name them in the table"


def look(folder: Path) -> Seen:
    """Look for compiled objects, and for what makes them."""
    objects = []
    for place, folders, files in os.walk(folder, onerror=reraise):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith("."))
        paths = (Path(place, name) for name in files if name.endswith(".o"))
        objects += [str(path.relative_to(folder)) for path in paths if is_object(path)]
    return Seen(tuple(sorted(objects)), tuple(build for name, build in _BUILDS.items() if (folder / name).is_file()))


def is_object(path: Path) -> bool:
    """Whether a file is an object of BPF code."""
    with path.open("rb") as file:
        head = file.read(_MACHINE + 2)
    return head[:4] == b"\x7fELF" and head[_MACHINE:] in {_EM_BPF, _EM_BPF[::-1]}


def patterns(objects: tuple[str, ...]) -> list[str]:
    """Return patterns for objects: one for each folder and suffix."""
    made: dict[str, None] = {}
    for name in objects:
        path = Path(name)
        made[str(path.parent / ("*.bpf.o" if name.endswith(".bpf.o") else "*.o"))] = None
    return list(made)


def table(seen: Seen) -> str:
    """Return the text of kernel-matrix.toml."""
    named = ", ".join(f'"{pattern}"' for pattern in patterns(seen.objects) or ["build/*.bpf.o"])
    built = "".join(f"# built by: {build}\n" for build in seen.builds)
    listed = "".join(f"#   {name}\n" for name in seen.objects)
    return f"""# What the kernel matrix runs; every key is optional (docs/configuration.md, docs/objects.md).
{built}# Each object is a test file: its programs are loaded, attached and measured on every kernel.
{listed}objects = [{named}]

# Tests in Python that run in the guests.
tests = ["{_TEST.parent}"]

# Needing more than these is red.
# capabilities = ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]

# What only the objects' own loader knows. A cell that is `undeclared` prints the line to add.
# [object."x.bpf.o"]
# max-entries = {{ tasks = 1024 }}
# variables = {{ slots = 16 }}
# sections = {{ flows = "tc" }}

# What is not expected to pass.
# [[expect]]
# cells = "*/x.bpf.o::on_frags::*"
# kernels = ["5.10"]
# refused = {{ stage = "load", errno = "EINVAL" }}

# What it does while it is attached (docs/scenarios.md).
# [[scenario]]
# name = "a-datagram"
# object = "x.bpf.o"
# do = [{{ send = "Ether()/IP()/UDP(dport=53)", times = 3 }}]
# then = [{{ map = "packets", key = 17, value = 3 }}]
"""


EXAMPLE = '''"""An example: tests here run as root inside the guests, once on each kernel (docs/scenarios.md)."""

from __future__ import annotations

from pathlib import Path

# from kernel_matrix.guest.pytest.attached import Attach, Traffic


def test_the_kernel_shows_its_types() -> None:
    """Without BTF, objects that use CO-RE cannot be loaded."""
    assert Path("/sys/kernel/btf/vmlinux").exists()


# def test_datagrams_are_counted(attached: Attach, traffic: Traffic) -> None:
#     counter = attached("x.bpf.o")
#     traffic.send("Ether()/IP()/UDP(dport=53)", 3)
#     assert counter.map("packets")[17] == 3
'''


def workflow(seen: Seen) -> str:
    """Return the text of a workflow for GitHub."""
    builds = "".join(f"      - run: {build}\n" for build in seen.builds)
    return f"""name: kernel-matrix
on: [push, pull_request]
permissions:
  contents: read
jobs:
  kernel-matrix:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
        with:
          persist-credentials: false
{builds}      # the engine, from where you keep it
      - run: pipx install kernel-matrix
      - run: kernel-matrix bootstrap
      - run: kernel-matrix run
"""
