"""From pytest's command line to a run of the matrix: what is requested, where it runs, which plugins take part."""

from __future__ import annotations

from functools import partial
from typing import Literal, NoReturn

import pytest

from kernel_matrix.config import options
from kernel_matrix.config.project import load
from kernel_matrix.plan import guest_list, preparation, sharding
from kernel_matrix.plan.bpf import objects
from kernel_matrix.remote import guest_hosts
from kernel_matrix.report import reports, run_folder
from kernel_matrix.report.timeline import Timeline
from kernel_matrix.results import matrix
from kernel_matrix.session import events
from kernel_matrix.session.controller import ControllerPlugin
from kernel_matrix.session.display import output, progress, timeline
from kernel_matrix.session.keeping import KeepingPlugin
from kernel_matrix.session.nodes import worker_of
from kernel_matrix.session.scheduler import Fresh, KernelScheduling
from kernel_matrix.session.workers import WorkersPlugin
from kernel_matrix.shared import hints
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.project import Project
from kernel_matrix.vm import debugging
from kernel_matrix.vm.guests import Guests

#: the options with which a worker reads pytest's cache
_READING_THE_CACHE = ("lf", "failedfirst", "newfirst", "stepwise")
#: options that make no difference inside a guest: xdist sends a worker the whole command line, and a saved worker is
#: found again only with the same one
_HOST_OPTIONS = (
    *("--kernel", "--loader", "--require-loader", "--results", "--baseline", "--guests", "--silence"),
    *("--boot-timeout", "--manifest", "--shard", "--hosts"),
)
_HOST_FLAGS = ("--ask-again",)


def start(config: pytest.Config) -> None:
    """Prepare everything the run needs and register the plugin that runs it; raises HarnessError."""
    run_timeline = Timeline(imported=timeline.now())
    if config.option.gdb and not config.option.keep_guest:
        raise ManifestError(f"--gdb goes with --keep-guest (or `{hints.command('shell', '--gdb KERNEL')}`)")
    if config.option.gdb and config.option.test_timeout is None:
        # a kernel that is stopped in a debugger takes longer than any limit
        config.option.test_timeout = 0.0
    if config.option.test_timeout is not None and config.option.test_timeout < 0:
        raise ManifestError(f"--test-timeout {config.option.test_timeout:g}: must be 0 (no limit) or more")
    if config.option.repeat < 1:
        raise ManifestError(f"--repeat {config.option.repeat}: must be at least 1")
    project = _project(config)
    objects.make_first(project, say)
    shard, hosts = _shard(config), _hosts(config)
    run = run_folder.RunDirectory.create(config.option.results or project.results, reports.of(project))
    plan = hosts.prepare(project, _request(config, project, shard), run, say)
    run_timeline.planned = timeline.now()
    if plan.part is not None and not plan.guests:
        _end_empty(plan, plan.part, run)
    before = config.invocation_params
    words = expect.without_options(_words(config, project), _HOST_OPTIONS, _HOST_FLAGS)
    config.invocation_params = type(before)(
        args=(*options.leading_arguments(project), *words), plugins=before.plugins, dir=before.dir
    )
    # versions and plugins of the host's Python: none of them matters in a guest
    config.option.no_header = config.option.no_header or config.option.verbose <= 0
    config.option.dist = "load"
    config.option.px = hosts.gateways()
    config.option.tx = [hosts.relay(guest, WorkerId(guest.kernel)) for guest in plan.guests]
    config.pluginmanager.register(hosts, "matrix-hosts")
    config.pluginmanager.add_hookspecs(events.Specs)
    show = partial(output.show, config)
    shared = (config, plan, run, hosts, output.Outputs(run.path / "output", show))
    kernels = [guest.kernel for guest in plan.guests]
    scheduling = KernelScheduling(kernels, worker_of, Fresh(config.option.fresh), plan.piece_path)
    times = Guests(plan.folder)
    config.pluginmanager.register(ControllerPlugin(*shared, scheduling, times), "matrix-controller")
    config.pluginmanager.register(WorkersPlugin(*shared, scheduling, times), "matrix-workers")
    config.pluginmanager.register(timeline.TimelinePlugin(run.path, run_timeline), "matrix-timeline")
    config.pluginmanager.register(progress.ProgressPlugin(config, kernels))
    if config.option.keep_guest:
        config.pluginmanager.register(KeepingPlugin(config, plan.folder, show))


def list_only(config: pytest.Config) -> None:
    """Let pytest collect here what the guests would run; raises HarnessError. Nothing is fetched or booted."""
    from kernel_matrix.plan import collecting

    project = _project(config)
    objects.make_first(project, say)
    request = _request(config, project, _shard(config))
    guests = {guest.name: guest for guest in guest_list.list_guests(project, request).guests}
    collecting.register(config, list(guests), project.all_loaders, project.object_table, project.commands)
    config.pluginmanager.register(collecting.OnlyTheirs(guests, request.loaders), "matrix-listing")


def _request(config: pytest.Config, project: Project, shard: sharding.Shard | None) -> guest_list.RunRequest:
    """Return what the command line asks for; raises ManifestError."""
    return guest_list.RunRequest(
        kernels=tuple(config.option.kernel),
        arguments=_selected(config, project),
        guests=config.option.guests,
        locked=config.option.locked,
        silence=config.option.silence or (debugging.PATIENCE if config.option.gdb else None),
        boot_timeout=config.option.boot_timeout,
        manifest=config.option.manifest,
        cold=config.option.cold,
        ask_again=config.option.ask_again,
        worker=_worker(config),
        rehearsed=not config.option.command,
        baseline=config.option.baseline,
        with_cache=any(_cache_option(config, name) for name in _READING_THE_CACHE),
        options=_narrowing(config),
        words=_words(config, project),
        whole=_takes_all(config),
        shard=shard,
        divided=_may_divide(config),
        carried=config.option.carry,
        loaders=_loaders(config, project),
        required_loaders=tuple(config.option.require_loader),
    )


def _project(config: pytest.Config) -> Project:
    """Return the project of pytest's root; raises ManifestError."""
    project = load(config.rootpath)
    if project is None:
        raise ManifestError(f"{config.rootpath}: no kernel-matrix.toml, and no [tool.kernel-matrix] in pyproject.toml")
    return project


def _loaders(config: pytest.Config, project: Project) -> tuple[str, ...]:
    """Return the loaders that tests run with, in the table's order; raises ManifestError for an unknown one."""
    named = {"--loader": config.option.loader, "--require-loader": config.option.require_loader}
    for option, names in named.items():
        for name in names:
            if name not in project.all_loaders:
                known = ", ".join(project.all_loaders) or "none"
                raise ManifestError(f"{option} {name}: not one of the table's loaders ({known})")
    chosen = config.option.loader or project.loaders
    if idle := [name for name in config.option.require_loader if name not in chosen]:
        why = "--loader leaves it out" if config.option.loader else f"it runs on request: add --loader {idle[0]}"
        raise ManifestError(f"--require-loader {idle[0]}: {why}")
    return tuple(name for name in project.all_loaders if name in chosen)


def _words(config: pytest.Config, project: Project) -> tuple[str, ...]:
    """Return the words of the command line that the user wrote."""
    words, added = tuple(map(str, config.invocation_params.args)), options.leading_arguments(project)
    return words[len(added) :] if words[: len(added)] == added else words


def _shard(config: pytest.Config) -> sharding.Shard | None:
    """Return the part of the run that ``--shard`` selects; raises ManifestError."""
    if config.option.shard is None:
        return None
    if config.option.command:
        raise ManifestError("--shard: test files are divided, a command has none")
    return sharding.Shard.parse(config.option.shard)


def _hosts(config: pytest.Config) -> guest_hosts.GuestHosts:
    """Return the machines that the guests run on; raises ManifestError."""
    option = config.option
    if option.hosts is not None and (option.keep_guest or option.gdb):
        raise ManifestError("--hosts: a guest on another machine is not kept or debugged from here")
    return guest_hosts.of(option.hosts, config.rootpath)


def say(line: str) -> None:
    """Print a line before the first test, when pytest's terminal reporter is not set up yet."""
    print(line, flush=True)


def _end_empty(plan: preparation.Plan, part: sharding.Part, run: run_folder.RunDirectory) -> NoReturn:
    """Write the results of a shard that has nothing to run, for `merge`, and exit with status 0."""
    run.finish(run.document(matrix.Matrix.of((), (), ()), plan.facts), plan.facts, ())
    sharding.keep(run.path, part)
    pytest.exit(f"shard {part.shard} has nothing to run: there are fewer test files on kernels than shards", 0)


def _selected(config: pytest.Config, project: Project) -> tuple[str, ...]:
    """Return the paths and node ids that decide which guests are booted."""
    if config.option.command:
        return guest_list.arguments_without_tests(project, config.option.kernel)
    # where the project's tests do not exist, pytest has taken all that is below its root instead
    return tuple(config.args) if config.args_source is config.ArgsSource.ARGS else project.all_tests


def _takes_all(config: pytest.Config) -> bool:
    """Whether the run has all tests: in such a long run, saving each kernel's worker costs little."""
    option = config.option
    options = (
        option.command,
        option.keyword,
        option.markexpr,
        _cache_option(config, "lf"),
        option.deselect,
        option.ignore,
        option.ignore_glob,
        option.loader,
    )
    return not any(options) and config.args_source is not config.ArgsSource.ARGS


def _cache_option(config: pytest.Config, name: str) -> bool:
    """Return an option that reads pytest's cache: it does not exist with ``-p no:cacheprovider``."""
    return bool(getattr(config.option, name, False))


def _worker(config: pytest.Config) -> Literal["again", "always", "whole"]:
    """Return when a kernel's worker is saved: in a run of all tests at once, unless the next has another order."""
    if config.option.fresh != Fresh.KERNEL:
        return "always"
    return "whole" if _takes_all(config) and config.option.order is None else "again"


def _may_divide(config: pytest.Config) -> bool:
    """Whether more guests of a kernel than its first one may pay off.

    Single tests are over sooner than another guest boots, and a user who wants to look at a guest has to know which.
    """
    option = config.option
    single_tests = any("::" in argument for argument in config.args)
    chosen = _narrowing(config) or option.deselect or _cache_option(config, "stepwise") or single_tests
    return not (chosen or option.cold or option.command or option.keep_guest)


def _narrowing(config: pytest.Config) -> tuple[str, ...]:
    """Return the options that deselect some of the tests that the paths and node ids name."""
    option = config.option
    options = [("-k", option.keyword), ("-m", option.markexpr)]
    narrowing = [word for name, value in options if value for word in (name, value)]
    return (*narrowing, *(["--lf"] if _cache_option(config, "lf") else []))
