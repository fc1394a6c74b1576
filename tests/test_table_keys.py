"""The keys of a small project: build, commands, carry, guest, capabilities, kernels: read, refused, and obeyed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.config import keys, manifest
from kernel_matrix.config import project as configuration
from kernel_matrix.images import rootfs
from kernel_matrix.objects import build
from kernel_matrix.plan import provisioning, selection
from kernel_matrix.plan.bpf import objects
from kernel_matrix.plan.guest_list import RunRequest, list_guests
from kernel_matrix.relay import payload
from kernel_matrix.shared.errors import BuildError, ManifestError
from kernel_matrix.shared.project import MEMORY_MIB, Command, GuestNeeds, Project
from tests.projects import HERE

TABLE = """
objects = ["out/*.bpf.o"]
build = "make -C bpf"
commands = ["target/release/mytool --self-test", { run = "sh -c 'true'", timeout = 300 }]
carry = ["config"]
guest = { packages = ["nginx-light", "libstdc++6"], requirements = "requirements-guest.txt", memory = "1G" }
capabilities = ["BPF", "CAP_NET_ADMIN"]
kernels = ["5.10", "core"]
"""


def project(folder: Path, text: str) -> Project:
    (folder / "requirements-guest.txt").write_text("six==1.17.0\n")
    (folder / "kernel-matrix.toml").write_text(text)
    read = configuration.load(folder)
    assert read is not None
    return read


def test_the_keys_are_read(tmp_path: Path) -> None:
    read = project(tmp_path, TABLE)
    assert read.make == "make -C bpf"
    assert read.commands == (
        Command("target/release/mytool --self-test"),
        Command("sh -c 'true'", timeout=300),
    )
    assert read.guest == GuestNeeds(("nginx-light", "libstdc++6"), tmp_path / "requirements-guest.txt", 1024)
    assert read.object_table.capabilities == ("CAP_BPF", "CAP_NET_ADMIN")
    assert read.kernels == ("5.10", "core")


def test_commands_alone_are_a_project(tmp_path: Path) -> None:
    """Without tests; the table's file stands for them."""
    read = project(tmp_path, 'commands = ["true"]')
    assert read.tests == ()
    assert read.all_tests == ("kernel-matrix.toml",)
    assert read.is_test("kernel-matrix.toml")
    assert not project(tmp_path, "").is_test("kernel-matrix.toml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("build = 3", "Expected `str | null`, got `int` - at `$.build`"),
        ('build = ""', "Expected `str` of length >= 1 - at `$.build`"),
        ('commands = "true"', "Expected `array`, got `str` - at `$.commands`"),
        ("commands = [3]", "got `int` - at `$.commands[0]`"),
        ('commands = [""]', "of length >= 1 - at `$.commands[0]`"),
        ('commands = [{ run = "true", limit = 3 }]', "unknown field `limit` - at `$.commands[0]`"),
        (
            'commands = [{ run = "true", known-issue-kernels = ["6.1"] }]',
            "commands: true: known-issue-kernels without known-issue, a reference",
        ),
        ("commands = [{ timeout = 3 }]", "missing required field `run` - at `$.commands[0]`"),
        ('commands = [{ run = "true", timeout = 0 }]', "`float` > 0.0 - at `$.commands[0].timeout`"),
        ('commands = ["true", { run = "true" }]', "commands: true: is there twice"),
        ('kernels = "6.1"', "Expected `array`, got `str` - at `$.kernels`"),
        ('guest = ["nginx"]', "Expected `object`, got `array` - at `$.guest`"),
        ('guest = { package = ["nginx"] }', "unknown field `package` - at `$.guest`"),
        ('guest = { packages = ["nginx,curl"] }', "at `$.guest.packages[0]`"),
        ('guest = { packages = ["--x"] }', "at `$.guest.packages[0]`"),
        ('guest = { memory = "1T" }', "at `$.guest.memory`"),
        ("guest = { memory = 1024 }", "Expected `str | null`, got `int` - at `$.guest.memory`"),
        ('guest = { memory = "511M" }', "guest.memory: 511M: a guest needs 512M at least"),
        ('guest = { requirements = "none.txt" }', "guest.requirements: none.txt: no such file below"),
        ('guest = { requirements = "../x/requirements-guest.txt" }', "guest.requirements: ../x/requirements-guest.txt"),
        ('capabilities = ["BPFF"]', "capabilities: BPFF: no such capability (such as BPF, or CAP_BPF)"),
        ('capabilities = ["cap_bpf"]', "capabilities: cap_bpf: no such capability"),
        ("capabilities = [3]", "Expected `str`, got `int` - at `$.capabilities[0]`"),
    ],
)
def test_a_wrong_key_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    with pytest.raises(ManifestError, match=r"^kernel-matrix\.toml: ") as error:
        project(folder, text)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_every_capability_of_linux_is_known() -> None:
    """linux/capability.h numbers them from 0, CAP_LAST_CAP is CAP_CHECKPOINT_RESTORE, 40."""
    names = keys._CAPABILITIES
    assert len(names) == len(set(names)) == 41
    assert (names[12], names[21], names[38], names[39]) == ("NET_ADMIN", "SYS_ADMIN", "PERFMON", "BPF")


# -- build


def test_the_build_runs_in_the_projects_folder(tmp_path: Path) -> None:
    """Before anything else looks for the objects, and once."""
    lines: list[str] = []
    read = project(tmp_path, 'build = "mkdir -p out; echo made >> out/x.bpf.o"\nobjects = ["out/*.bpf.o"]')
    objects.make_first(read, lines.append)
    assert read.object_files == ("out/x.bpf.o",)
    assert (tmp_path / "out" / "x.bpf.o").read_text() == "made\n"
    assert lines == ["build: mkdir -p out; echo made >> out/x.bpf.o"]


@pytest.mark.parametrize(("end", "why"), [("exit 7", "exit status 7"), ("kill -9 $$", "killed by signal 9")])
def test_a_failed_build_has_one_line_then_the_last_ones(tmp_path: Path, end: str, why: str) -> None:
    read = project(tmp_path, f'build = "seq 100; echo wrong >&2; {end}"')
    with pytest.raises(BuildError) as error:
        build.make(read)
    first, *last = str(error.value).splitlines()
    assert first == f"kernel-matrix.toml: build: seq 100; echo wrong >&2; {end}: {why}"
    assert last == [*(str(number) for number in range(82, 101)), "wrong"]
    assert error.value.exit_status == 1


def test_objects_named_for_a_gate_are_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are the table's commands run."""
    monkeypatch.setenv(configuration.OBJECTS_VARIABLE, '["x.o"]')
    read = project(tmp_path, 'build = "exit 1"\ncommands = ["true"]')
    assert (read.make, read.commands, read.all_tests) == ("", (), ())


# -- kernels


def _kernels(read: Project, *named: str, arguments: tuple[str, ...] = ()) -> list[str]:
    request = RunRequest(named, arguments=arguments, guests=None, locked=False, silence=None)
    return [guest.name for guest in list_guests(read, request).guests]


def test_the_tables_kernels_run_where_none_is_named(tmp_path: Path) -> None:
    read = replace(project(tmp_path, 'kernels = ["6.1", "7.3"]'), images=HERE.images)
    (tmp_path / "tests").mkdir()
    assert _kernels(read) == ["6.1", "7.3"]
    assert _kernels(read, arguments=("tests",)) == ["6.1", "7.3"]
    assert _kernels(read, "5.10") == ["5.10"]
    assert _kernels(read, arguments=("tests::test_x[6.12]",)) == ["6.12"]
    every = {kernel.name for kernel in manifest.load(HERE.images).kernels if kernel.tier == "core"}
    assert set(_kernels(replace(read, kernels=("core",)))) == set(_kernels(replace(read, kernels=()))) == every


def test_an_unknown_kernel_of_the_table_is_one_line(tmp_path: Path) -> None:
    read = project(tmp_path, 'kernels = ["6.1", "9.9"]')
    with pytest.raises(ManifestError, match=r"^kernel-matrix\.toml: kernels: unknown kernel '9\.9' \(known: core, "):
        _kernels(read)


# -- carry


def carried(read: Project) -> list[str]:
    return [str(path) for path in payload.project_files(payload.of_project(read))]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("target/release/mytool", "target/release/deps/big", "target/CACHEDIR.TAG", "config/a", "out/x.bpf.o",
                 "tests/kernel/test_a.py", "other/file"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def test_a_command_brings_the_programs_that_it_names(tree: Path) -> None:
    """And nothing else, beside the table, which is its test file."""
    read = project(tree, 'commands = ["./target/release/mytool --config=config/a; cat ../x /etc/passwd none"]')
    assert carried(read) == ["config/a", "kernel-matrix.toml", "target/release/mytool"]


def test_what_carry_names_comes_too(tree: Path) -> None:
    """A made folder as well, when it is named."""
    read = project(tree, 'objects = ["out/*.o"]\ncarry = ["target/release"]')
    assert carried(read) == ["out/x.bpf.o", "target/release/deps/big", "target/release/mytool"]


def test_a_project_with_tests_carries_no_made_files(tree: Path) -> None:
    """But the programs that commands name, and the objects."""
    read = project(tree, 'objects = ["target/*.o"]\ntests = ["tests/kernel"]\ncommands = ["target/release/mytool"]')
    (tree / "target" / "x.o").touch()
    assert carried(read) == [
        *("config/a", "kernel-matrix.toml", "other/file", "out/x.bpf.o", "requirements-guest.txt"),
        *("target/release/mytool", "target/x.o", "tests/kernel/test_a.py"),
    ]


def test_too_much_for_a_guest_is_one_line(tree: Path) -> None:
    """With more memory there is more room."""
    with (tree / "config" / "a").open("wb") as file:
        file.truncate(97 << 20)
    read = project(tree, 'commands = ["cat config/a"]')
    line = (
        "kernel-matrix.toml: guests would get 97 MiB of the project, and have room for 96 MiB:"
        " name what they need with `carry`, or more guest.memory"
    )
    with pytest.raises(ManifestError) as error:
        provisioning.check_room(read)
    assert str(error.value) == line
    provisioning.check_room(project(tree, 'commands = ["cat config/a"]\nguest = { memory = "768M" }'))


# -- guest


def test_the_root_image_has_what_the_guest_needs(tmp_path: Path) -> None:
    """Each set of packages and requirements is an image of its own; a project without has the engine's."""
    plain = manifest.load(HERE.images)
    more = [
        manifest.with_guest(plain, project(tmp_path, f"guest = {{ {text} }}"))
        for text in ("", 'packages = ["nginx-light"]', 'packages = ["curl"]', 'requirements = "requirements-guest.txt"')
    ]
    names = [rootfs.root_key(one) for one in more]
    assert names[0] == rootfs.root_key(plain)
    assert len(set(names)) == 4
    (tmp_path / "requirements-guest.txt").write_text("six==1.16.0\n")
    assert rootfs.root_key(more[3]) not in names


def test_memory_is_that_of_the_engine_by_default(tmp_path: Path) -> None:
    assert project(tmp_path, "").guest.memory_mib == MEMORY_MIB == 512
    assert project(tmp_path, 'guest = { memory = "2G" }').guest.memory_mib == 2048


def test_the_guests_packages_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pip held to the versions of the engine's own packages, which the host has, too."""
    commands: list[list[str]] = []
    constraints = ""

    def run(command: list[str], _what: str, **_more: object) -> str:
        nonlocal constraints
        commands.append(command)
        if "--constraint" in command:
            constraints = Path(command[command.index("--constraint") + 1]).read_text()
        if command[0] != "mkfs.erofs" and "mmdebstrap" in command:
            raise StopIteration
        return ""

    monkeypatch.setattr(rootfs, "run", run)
    read = manifest.with_guest(manifest.load(HERE.images), project(tmp_path, TABLE))
    with pytest.raises(StopIteration):
        rootfs._build(read, tmp_path / "made")
    own, mmdebstrap = commands[1:]
    assert own[own.index("--requirement") + 1] == str(tmp_path / "requirements-guest.txt")
    assert "pytest==" in constraints
    assert "--hash" not in constraints
    (include,) = [word for word in mmdebstrap if word.startswith("--include=")]
    assert include.endswith(",nginx-light,libstdc++6")


def test_a_cell_of_a_command_is_known_before_a_guest_boots(tmp_path: Path) -> None:
    """As `rerun` asks."""
    read = project(tmp_path, 'commands = ["bin/x --self-test"]')
    assert selection.collects(read, "kernel-matrix.toml::command[6.1-bin/x --self-test]", "6.1")
    assert not selection.collects(read, "kernel-matrix.toml::command[6.1-bin/y]", "6.1")
