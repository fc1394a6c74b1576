"""The command ``init``: write the table of a project of objects, a test as an example, and a workflow."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.config import project as projects
from kernel_matrix.objects import build
from kernel_matrix.objects.needed import declarations
from kernel_matrix.shared.bpf import bpf_elf
from kernel_matrix.shared.errors import ManifestError, reraise
from kernel_matrix.shared.outcomes import proposals

#: folders without objects of the project
_LEFT_OUT = frozenset({"node_modules", "venv", "results", "deps", "incremental"})
#: a file that tells how the objects are made -> the command; the first one drives the others where there are several
_BUILDS = {"Makefile": "make", "Cargo.toml": "cargo build --release", "go.mod": "go generate ./..."}
#: names of objects by libbpf's habit, by bpf2go's, any other
_SUFFIXES = (".bpf.o", "_bpfel.o", ".o")
#: what Cargo adds to a folder's name: another build of the same package has another one
_HASH = re.compile(r"-[0-9a-f]{16}(?=/|$)")
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
    files = {Path(projects.OWN_FILE): table(folder, seen), _TEST: EXAMPLE, _WORKFLOW: WORKFLOW}
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
        # Rust's objects have no suffix
        paths = (Path(place, name) for name in files if Path(name).suffix in {".o", ""})
        objects += [str(path.relative_to(folder)) for path in paths if _is_of_here(path)]
    return Seen(tuple(sorted(objects)), tuple(build for name, build in _BUILDS.items() if (folder / name).is_file()))


def _is_of_here(path: Path) -> bool:
    return path.is_file() and bpf_elf.is_object(path) and not build.is_for_another_architecture(path.name)


def patterns(folder: Path, objects: tuple[str, ...]) -> list[str]:
    """Return patterns for objects, which no other file of these folders matches: one for a folder and suffix."""
    made: dict[str, None] = {}
    for name in objects:
        above = Path(_HASH.sub("-*", str(Path(name).parent)))
        suffix = next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")
        pattern = str(above / f"*{suffix}")
        if not suffix or {str(path.relative_to(folder)) for path in folder.glob(pattern)} - set(objects):
            pattern = str(above / Path(name).name)
        made[pattern] = None
    return list(made)


def table(folder: Path, seen: Seen) -> str:
    """Return the text of kernel-matrix.toml."""
    lines = [line for name in seen.objects for line in _declared(folder, name)]
    only_its_loader = "".join(f"# {line}\n" if line else "#\n" for line in proposals.tables(lines)) or _SETTINGS
    named = ", ".join(f'"{pattern}"' for pattern in patterns(folder, seen.objects) or ["build/*.bpf.o"])
    built = _built(seen.builds)
    listed = "".join(f"#   {name}\n" for name in seen.objects)
    return f"""# What the kernel matrix runs; every key is optional (docs/configuration.md, docs/objects.md).
{built}# Each object is a test file: its programs are loaded, attached and measured on every kernel.
{listed}objects = [{named}]

# Tests in Python that run in the guests.
tests = ["{_TEST.parent}"]

# Your own loader, run in the guests: exit status 0 is green. `carry` names what it needs beside its program.
# commands = ["bin/loader --self-test"]
# carry = ["config"]
# guest = {{ packages = ["nginx-light"], requirements = "requirements-guest.txt", memory = "1G" }}

# Needing more than these is red.
# capabilities = ["BPF", "PERFMON", "NET_ADMIN"]

# The kernels of a run that names none.
# kernels = ["5.10", "6.1", "6.12"]

# What only the objects' own loader knows. A cell that is `undeclared` prints the line to add.
{only_its_loader}
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


_SETTINGS = """# [object."x.bpf.o"]
# max-entries = { tasks = 1024 }
# variables = { slots = 16 }
# sections = { flows = "tc" }
"""


def _declared(folder: Path, name: str) -> Iterator[str]:
    """Yield what the table lacks for an object; nothing of one that cannot be read, which a run says."""
    with contextlib.suppress(ManifestError):
        yield from declarations.proposed((folder / name).read_bytes(), name)


def _built(commands: tuple[str, ...]) -> str:
    """Return the lines of the table about what makes the objects."""
    if not commands:
        return '# What makes the objects, run before each run.\n# build = "make"\n\n'
    others = "".join(f"# or: {command}\n" for command in commands[1:])
    return f'# What makes the objects, run before each run.\nbuild = "{commands[0]}"\n{others}\n'


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

WORKFLOW = """name: kernel-matrix
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
      # the engine, from where you keep it
      - run: pipx install kernel-matrix
      - run: kernel-matrix bootstrap
      - run: kernel-matrix run
"""
