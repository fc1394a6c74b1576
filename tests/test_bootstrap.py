"""What is missing, how it would be installed, and the line that says so. Nothing is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kernel_matrix.dev import bootstrap
from kernel_matrix.dev.bootstrap import Need


def need(program: str | None = None, *files: str, groups: str = "matrix") -> Need:
    packages = {"apt": f"{program}-deb", "dnf": f"{program}-rpm", "pacman": f"{program}-pkg"}
    return Need(program, files, frozenset(groups.split()), packages)


def test_every_family_has_a_package_and_every_need_a_session() -> None:
    """The table of the tools names them."""
    for requirement in bootstrap.needs():
        packaged = all(requirement.packages.get(family) for family in ("apt", "dnf", "pacman"))
        assert packaged or (requirement.command and not requirement.packages), requirement
        assert requirement.groups <= {"build", "matrix", "tests", "report", "lint"} | bootstrap.OPTIONAL, requirement
        assert requirement.groups, requirement


def test_a_program_is_looked_for_where_distributions_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not need("some-program-of-ours").present()
    (tmp_path / "some-program-of-ours").touch(mode=0o755)
    assert need("some-program-of-ours").present()
    assert need(None, "/etc/pass*").present()
    assert not need(None, "/no/such/*", "/nor/this").present()


APT_INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends")


def test_help_is_not_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main(["--help"], "do [--dry-run]") == 0
    assert capsys.readouterr().out.startswith("usage: do [--dry-run]\n")


def test_nothing_missing_is_no_command() -> None:
    assert bootstrap.commands([], "apt", root=False) == []


@pytest.mark.parametrize(
    ("manager", "root", "expected"),
    [
        ("apt", True, [["apt-get", "update"], [*APT_INSTALL, "a-deb", "b-deb"]]),
        ("apt", False, [["sudo", "apt-get", "update"], ["sudo", *APT_INSTALL, "a-deb", "b-deb"]]),
        ("dnf", False, [["sudo", "dnf", "install", "--assumeyes", "a-rpm", "b-rpm"]]),
        ("pacman", True, [["pacman", "--sync", "--refresh", "--needed", "--noconfirm", "a-pkg", "b-pkg"]]),
    ],
)
def test_each_family_has_its_command_and_each_package_once(
    manager: str, *, root: bool, expected: list[list[str]]
) -> None:
    assert bootstrap.commands([need("a"), need("b"), need("a")], manager, root=root) == expected


def test_apt_comes_before_a_dnf_that_happens_to_be_there() -> None:
    assert bootstrap.family(lambda name: "/usr/bin/" + name) == "apt"
    assert bootstrap.family(lambda name: "/x" if name == "pacman" else None) == "pacman"
    with pytest.raises(bootstrap.BootstrapError, match=r"^no known package manager found \(apt-get, dnf, pacman\)$"):
        bootstrap.family(lambda _: None)


def test_a_session_names_program_package_and_command() -> None:
    assert bootstrap.explain("build", [need("clang")], "apt", "do it") == (
        "build: clang is missing (package clang-deb): run `do it`"
    )


def test_dry_run_says_how_and_does_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(subprocess, "run", never)
    monkeypatch.setattr(bootstrap, "missing", lambda *_: (need("clang"),))
    monkeypatch.setattr(bootstrap, "family", lambda: "apt")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert bootstrap.main(["--dry-run"], "do") == 0
    assert "bootstrap: sudo apt-get install --yes --no-install-recommends clang-deb" in capsys.readouterr().out
    assert bootstrap.main(["--dry"], "do") == 4
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert bootstrap.main([], "do") == 3
    assert capsys.readouterr().err.endswith("bootstrap: not root and no sudo: run as root\n")
    monkeypatch.setattr(bootstrap, "missing", lambda *_: ())
    assert bootstrap.main([], "do") == 0
    assert capsys.readouterr().out == "bootstrap: nothing is missing\n"


COMPILED = Need("linker", (), frozenset({"rust-bpf"}), {}, ("cargo", "install", "linker"), {"PREFIX": "/usr/lib/x"})


def test_what_is_compiled_comes_after_the_packages() -> None:
    several = Need("rustc", (), frozenset({"rust-bpf"}), {"apt": "rustc-deb core-deb"})
    compiled = ["env", "PREFIX=/usr/lib/x", "cargo", "install", "linker"]
    assert bootstrap.commands([COMPILED, several], "apt", root=False) == [
        ["sudo", "apt-get", "update"],
        ["sudo", *APT_INSTALL, "rustc-deb", "core-deb"],
        compiled,
    ]
    assert bootstrap.commands([COMPILED], "apt", root=False) == [compiled]
    assert bootstrap.explain("x", [COMPILED], "apt", "do it") == (
        "x: linker is missing (compiled with cargo): run `do it`"
    )


def test_an_optional_group_is_installed_only_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "needs", lambda: (COMPILED,))
    monkeypatch.setattr(bootstrap, "family", lambda: "apt")
    assert bootstrap.missing() == bootstrap.missing(()) == bootstrap.missing(("build",)) == ()
    assert bootstrap.main(["--dry-run"], "do") == 0
    assert capsys.readouterr().out == "bootstrap: nothing is missing\n"
    for words in (["--with", "rust-bpf"], ["--with=rust-bpf"]):
        assert bootstrap.main([*words, "--dry-run"], "do") == 0
        assert capsys.readouterr().out.endswith("bootstrap: env PREFIX=/usr/lib/x cargo install linker\n")


@pytest.mark.parametrize("words", [["--with"], ["--with", "all"], ["--with="], ["--with=tests"], ["rust-bpf"]])
def test_an_unknown_group_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main(words, "do [--with GROUP]") == 4
    assert "also install what these need: aya, cilium, rust-bpf" in capsys.readouterr().err


def test_a_program_in_cargos_folder_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cargo install` puts it where no PATH may lead."""
    monkeypatch.setenv("CARGO_HOME", str(tmp_path))
    assert not need("some-linker").present()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "some-linker").touch(mode=0o755)
    assert need("some-linker").present()


def test_who_only_uses_the_engine_gets_no_browser(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, emulator = need("no-such-browser", groups="report"), need("no-such-emulator")
    monkeypatch.setattr(bootstrap, "needs", lambda: (browser, emulator))
    monkeypatch.setattr(bootstrap, "family", lambda: "apt")
    assert bootstrap.main(["--dry-run"], "do", bootstrap.USERS) == 0
    output = capsys.readouterr().out
    assert "no-such-emulator-deb" in output
    assert "browser" not in output
    assert bootstrap.main(["--dry-run"], "do") == 0
    assert "no-such-browser-deb" in capsys.readouterr().out
