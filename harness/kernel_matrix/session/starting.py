"""From pytest's command line to a run of the matrix: what is wished for, where it runs, who takes part."""

from __future__ import annotations

from functools import partial
from typing import NoReturn

import pytest

from kernel_matrix.config import options
from kernel_matrix.config.project import load
from kernel_matrix.plan import guest_list, preparation, sharding
from kernel_matrix.remote import guest_hosts
from kernel_matrix.report import reports, run_folder
from kernel_matrix.report.timeline import Timeline
from kernel_matrix.results import matrix
from kernel_matrix.session import events, output, progress, timeline
from kernel_matrix.session.controller import ControllerPlugin
from kernel_matrix.session.keeping import KeepingPlugin
from kernel_matrix.session.nodes import worker_of
from kernel_matrix.session.scheduler import Fresh, KernelScheduling
from kernel_matrix.session.workers import WorkersPlugin
from kernel_matrix.shared import expect, hints
from kernel_matrix.shared.division import WorkerId
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project
from kernel_matrix.vm import debugging
from kernel_matrix.vm.guests import Guests

#: the options with which a worker reads pytest's cache
_READING_THE_CACHE = ("lf", "failedfirst", "newfirst", "stepwise")
#: options that make no difference inside a guest: xdist tells a worker the whole command line, and only one that was
#: told the same before is found again
_HOSTS_OWN = (
    *("--kernel", "--results", "--baseline", "--guests", "--silence", "--boot-timeout", "--manifest", "--shard"),
    "--hosts",
)
_HOSTS_OWN_FLAGS = ("--ask-again",)


def start(config: pytest.Config) -> None:
    """Prepare everything the run needs and register the plugin that runs it; raises HarnessError."""
    passed = Timeline(imported=timeline.now())
    if config.option.gdb and not config.option.keep_guest:
        raise ManifestError(f"--gdb goes with --keep-guest (or `{hints.command('shell', '--gdb KERNEL')}`)")
    if config.option.gdb and config.option.test_timeout is None:
        # who stops a kernel to look at it takes longer than any test
        config.option.test_timeout = 0.0
    if config.option.test_timeout is not None and config.option.test_timeout < 0:
        raise ManifestError(f"--test-timeout {config.option.test_timeout:g}: 0 is no limit, less is none at all")
    if config.option.repeat < 1:
        raise ManifestError(f"--repeat {config.option.repeat}: once is the least")
    project = _project(config)
    shard, hosts = _shard(config), _hosts(config)
    run = run_folder.RunDirectory.create(config.option.results or project.results, reports.of(project))
    plan = hosts.prepare(
        project,
        guest_list.RunRequest(
            kernels=tuple(config.option.kernel),
            arguments=_selected(config, project),
            guests=config.option.guests,
            locked=config.option.locked,
            silence=config.option.silence or (debugging.PATIENCE if config.option.gdb else None),
            boot_timeout=config.option.boot_timeout,
            manifest=config.option.manifest,
            cold=config.option.cold,
            ask_again=config.option.ask_again,
            worker="always" if config.option.fresh != Fresh.KERNEL else "whole" if _takes_all(config) else "again",
            rehearsed=not config.option.command,
            baseline=config.option.baseline,
            with_cache=any(getattr(config.option, name, False) for name in _READING_THE_CACHE),
            options=_narrowing(config),
            words=_words(config, project),
            whole=_takes_all(config),
            shard=shard,
            divided=_may_divide(config),
            carried=config.option.carry,
        ),
        run,
        say,
    )
    passed.planned = timeline.now()
    if plan.part is not None and not plan.guests:
        _end_empty(plan, plan.part, run)
    before = config.invocation_params
    words = expect.without_options(_words(config, project), _HOSTS_OWN, _HOSTS_OWN_FLAGS)
    config.invocation_params = type(before)(
        args=(*options.own_arguments(project), *words), plugins=before.plugins, dir=before.dir
    )
    # versions and plugins of the host's Python: nothing of it decides what a test finds in a guest
    config.option.no_header = config.option.no_header or config.option.verbose <= 0
    config.option.dist = "load"
    config.option.px = hosts.gateways()
    config.option.tx = [hosts.relay(guest, WorkerId(guest.kernel)) for guest in plan.guests]
    config.pluginmanager.register(hosts, "matrix-hosts")
    config.pluginmanager.add_hookspecs(events.Specs)
    show = partial(output.show, config)
    shared = (config, plan, run, hosts, output.Outputs(run.path / "output", show))
    kernels = [guest.kernel for guest in plan.guests]
    scheduling = KernelScheduling(kernels, worker_of, Fresh(config.option.fresh), plan.not_divided_from)
    times = Guests(plan.folder)
    config.pluginmanager.register(ControllerPlugin(*shared, scheduling, times), "matrix-controller")
    config.pluginmanager.register(WorkersPlugin(*shared, scheduling, times), "matrix-workers")
    config.pluginmanager.register(timeline.TimelinePlugin(run.path, passed), "matrix-timeline")
    config.pluginmanager.register(progress.ProgressPlugin(config, kernels))
    if config.option.keep_guest:
        config.pluginmanager.register(KeepingPlugin(config, plan.folder, show))


def _project(config: pytest.Config) -> Project:
    """Return the project of pytest's root; raises ManifestError."""
    found = load(config.rootpath)
    if found is None:
        raise ManifestError(f"{config.rootpath}: no kernel-matrix.toml, and no [tool.kernel-matrix] in pyproject.toml")
    return found


def _words(config: pytest.Config, project: Project) -> tuple[str, ...]:
    """Return the user's own words of the command line."""
    words, own = tuple(map(str, config.invocation_params.args)), options.own_arguments(project)
    return words[len(own) :] if words[: len(own)] == own else words


def _shard(config: pytest.Config) -> sharding.Shard | None:
    """Return which part of the run is wanted; raises ManifestError."""
    if config.option.shard is None:
        return None
    if config.option.command:
        raise ManifestError("--shard: test files are divided, a command has none")
    return sharding.Shard.parse(config.option.shard)


def _hosts(config: pytest.Config) -> guest_hosts.GuestHosts:
    """Return where the guests are; raises ManifestError."""
    option = config.option
    if option.hosts is not None and (option.keep_guest or option.gdb):
        raise ManifestError("--hosts: a guest on another machine is not kept or debugged from here")
    return guest_hosts.of(option.hosts, config.rootpath)


def say(line: str) -> None:
    """Tell what comes before the first test: pytest's own way to write has not been set up by then."""
    print(line, flush=True)


def _end_empty(plan: preparation.Plan, part: sharding.Part, run: run_folder.RunDirectory) -> NoReturn:
    """Leave the results of a shard that has nothing to run, for `merge`, and end green."""
    run.finish(run.document(matrix.Matrix.of((), (), ()), plan.facts), plan.facts, ())
    sharding.keep(run.path, part)
    pytest.exit(f"shard {part.shard} has nothing to run: there are fewer test files on kernels than shards", 0)


def _selected(config: pytest.Config, project: Project) -> tuple[str, ...]:
    """Return the paths and node ids that decide which guests there are."""
    if not config.option.command:
        return tuple(config.args)
    return guest_list.without_tests(project, config.option.kernel)


def _takes_all(config: pytest.Config) -> bool:
    """Whether the run leaves no test out: a long one, in which saving each kernel's worker costs little."""
    option = config.option
    options = (
        option.command,
        option.keyword,
        option.markexpr,
        option.lf,
        option.deselect,
        option.ignore,
        option.ignore_glob,
    )
    return not any(options) and config.args_source is not config.ArgsSource.ARGS


def _may_divide(config: pytest.Config) -> bool:
    """Whether guests beside a kernel's own are worth it.

    A choice of single tests is soon over, a guest that boots takes longer than most, and who wants to look at a guest
    wants to know which.
    """
    option = config.option
    chosen = _narrowing(config) or option.deselect or option.stepwise or any("::" in each for each in config.args)
    return not (chosen or option.cold or option.command or option.keep_guest)


def _narrowing(config: pytest.Config) -> tuple[str, ...]:
    """Return the options that leave out some of the tests that the paths and node ids name."""
    option = config.option
    given = [("-k", option.keyword), ("-m", option.markexpr)]
    narrowing = [word for name, value in given if value for word in (name, value)]
    return (*narrowing, *(["--lf"] if option.lf else []))
