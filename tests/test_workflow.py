"""The workflow and the manifest agree, and every action is named by one commit."""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import msgspec
import pytest

from kernel_matrix.ci import command_line, workflow
from kernel_matrix.config import manifest
from kernel_matrix.config import project as configuration
from kernel_matrix.shared.errors import ManifestError
from tests.projects import HERE, ROOT, below

KNOWN = manifest.load(HERE.images)


def choices(text: str) -> list[str]:
    """The kernels that a run by hand can take."""
    block = re.search(r"^      kernels:\n.*?options:\n((?: {10}- [^\n]*\n)+)", text, re.MULTILINE | re.DOTALL)
    assert block
    return [line.strip().removeprefix("- ").strip('"') for line in block[1].splitlines()]


def test_the_committed_workflow_is_what_the_manifest_makes() -> None:
    assert (ROOT / workflow.PATH).read_text() == workflow.render(HERE, KNOWN)


def test_a_run_by_hand_can_take_each_kernel_and_each_group() -> None:
    names = choices((ROOT / workflow.PATH).read_text())
    assert names == ["core", "full", *[kernel.name for kernel in KNOWN.kernels]]
    for name in names:
        assert manifest.select(KNOWN, [name])


def test_a_kernel_more_is_a_choice_more_and_nothing_else_changes() -> None:
    more = manifest.Kernel(tier="core", provider="path", keys={"vmlinuz": "/x"}, name="mine")
    text = workflow.render(HERE, msgspec.structs.replace(KNOWN, kernels=(*KNOWN.kernels, more)))
    assert choices(text)[-1] == "mine"
    assert text.replace('          - "mine"\n', "") == workflow.render(HERE, KNOWN)


def test_the_jobs_run_in_the_debian_of_the_guests() -> None:
    root = msgspec.structs.replace(KNOWN.root, suite="forky")
    text = workflow.render(HERE, msgspec.structs.replace(KNOWN, root=root))
    assert set(re.findall(r"image: (\S+)", text)) == {"debian:forky"}


def test_what_is_written_is_current_and_what_was_edited_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / workflow.PATH).parent.mkdir(parents=True)
    template = tmp_path / "workflow.yml.j2"
    shutil.copy(ROOT / HERE.workflow, template)
    project = below(tmp_path, workflow=template.name)
    text = workflow.render(project, KNOWN)
    assert text == workflow.render(HERE, KNOWN)
    assert workflow.write(project, text)
    assert not workflow.write(project, text)
    monkeypatch.setattr(configuration, "find", lambda: project)
    parser = argparse.ArgumentParser()
    command_line.add(parser.add_subparsers().add_parser)
    check = parser.parse_args(["workflow", "--check"])
    assert check.run(check) == 0
    with (tmp_path / workflow.PATH).open("a") as file:
        file.write("# edited\n")
    with pytest.raises(
        ManifestError, match=r"kernel-matrix\.yml differs from the manifest: run `kernel-matrix workflow`$"
    ):
        check.run(check)
    write = parser.parse_args(["workflow"])
    assert write.run(write) == check.run(check) == 0
    assert capsys.readouterr().out == f"{workflow.PATH}: written\n"


def test_every_night_tries_all_mutants_else_a_sample() -> None:
    """In a job without which the gate is red."""
    text = (ROOT / workflow.PATH).read_text()
    steps = re.findall(r"if: \$\{\{ (?:!cancelled\(\) && )?(.*) \}\}\n +run: \S+ -s (.*mutants.*)", text)
    assert [command for when, command in steps if when == "github.event_name == 'schedule'"] == [
        "harness-mutants",
        "mutants -- --kernel core --mistakes",
    ]
    assert [command for when, command in steps if when == "github.event_name != 'schedule'"] == [
        'harness-mutants -- --sample 100 --seed "$GITHUB_RUN_NUMBER"',
        'mutants -- --kernel core --mistakes --sample 20 --seed "$GITHUB_RUN_NUMBER"',
    ]
    assert text.count("needs: [checks, faults, mutants, plan, guests]") == 1


def test_a_project_without_a_template_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"^kernel-matrix\.toml: workflow: no template of the workflow is named$"):
        workflow.render(below(tmp_path), KNOWN)


def test_every_action_is_pinned_to_one_commit() -> None:
    """Every action is named by its commit, and an action has the same version wherever it is used."""
    versions: dict[str, set[str]] = {}
    for path in (ROOT / ".github").rglob("*.yml"):
        for name, rest in re.findall(r"uses: ([\w-]+/[\w-]+)(.*)", path.read_text()):
            pin = re.fullmatch(r"(?:/\w+)?@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", rest)
            assert pin, (path, name, rest)
            versions.setdefault(name, set()).add(f"{pin[1]} {pin[2]}")
    assert {"actions/checkout", "actions/cache", "actions/upload-artifact"} <= set(versions)
    assert all(len(pins) == 1 for pins in versions.values()), versions


def test_no_input_gets_into_a_script_but_through_the_environment() -> None:
    for path in (ROOT / ".github").rglob("*.yml"):
        for script in re.findall(r"^ +run: (?:\|\n((?: {10,}.*\n)+)|(.*))", path.read_text(), re.MULTILINE):
            assert "${{" not in "".join(script), path
