"""The commands of a CI: its workflow, its jobs, the keys of their caches, the counts of their results."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from kernel_matrix.config import project
from kernel_matrix.shared import hints
from kernel_matrix.shared.errors import ManifestError


def add(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands."""
    workflow = add_parser("workflow", help="write GitHub's workflow from the manifest")
    workflow.add_argument("--check", action="store_true", help="only check that the file is up to date")
    workflow.set_defaults(run=_workflow)
    plan = add_parser("plan", help="print the jobs of a CI, as JSON for GitHub's strategy.matrix")
    _kernels(plan)
    plan.add_argument("--shards", type=int, default=1, metavar="N", help="jobs for each kernel (default: 1)")
    plan.set_defaults(run=_plan)
    cache_key = add_parser("cache-key", help="print the keys of a CI's caches of images and saved guests")
    _kernels(cache_key)
    cache_key.set_defaults(run=_cache_key)
    images = add_parser(
        "images", help="fetch or build the images of kernels and of the guests' root, as every run does first"
    )
    _kernels(images)
    images.set_defaults(run=_images)
    counts = add_parser("counts", help="print how many cells of a report are green and red")
    counts.add_argument("results", type=Path, metavar="DIR", help="such as results/latest")
    counts.set_defaults(run=_counts)


def _kernels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kernel", action="append", default=[], metavar="NAME", help="also 'core' (the default), 'full'"
    )


def _workflow(arguments: argparse.Namespace) -> int:
    from kernel_matrix.ci import workflow
    from kernel_matrix.config import manifest

    here = project.find()
    kernel_manifest = manifest.load(here.images)
    text = workflow.render(here, kernel_manifest)
    if not arguments.check:
        print(f"{workflow.PATH}: {'written' if workflow.write(here, text) else 'up to date'}")
    elif not workflow.is_current(here, text):
        raise ManifestError(f"{workflow.PATH} differs from the manifest: run `{hints.command('workflow')}`")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from kernel_matrix import images
    from kernel_matrix.ci import jobs

    kernel_manifest = images.load(project.find().images)
    print(jobs.matrix(jobs.plan(kernel_manifest, arguments.kernel, arguments.shards)))
    # GitHub shows such a line beside the jobs
    kind = "::warning::" if os.environ.get("GITHUB_ACTIONS") else "kernel-matrix: "
    for name in jobs.left_out(kernel_manifest, arguments.kernel):
        print(f"{kind}{name}: no job, {images.not_locked()}", file=sys.stderr)
    return 0


def _cache_key(arguments: argparse.Namespace) -> int:
    from kernel_matrix import images
    from kernel_matrix.ci import cache_keys
    from kernel_matrix.config import manifest

    here = project.find()
    kernel_manifest = manifest.with_guest(images.load(here.images), here)
    for name, key in cache_keys.keys(kernel_manifest, manifest.select(kernel_manifest, arguments.kernel)).items():
        print(f"{name}={key}")
    return 0


def _images(arguments: argparse.Namespace) -> int:
    from kernel_matrix import images
    from kernel_matrix.config import manifest

    here = project.find()
    kernel_manifest = manifest.with_guest(images.load(here.images), here)
    print(f"root: {images.root_image(kernel_manifest).digest[:16]}")
    for kernel in manifest.select(kernel_manifest, arguments.kernel):
        image = images.kernel_image(kernel_manifest, kernel)
        print(f"{kernel.name}: {image.release} ({image.version})", *image.notes, sep="; ")
    return 0


def _counts(arguments: argparse.Namespace) -> int:
    from kernel_matrix.ci import jobs

    for name, number in jobs.counts(arguments.results).items():
        print(f"{name}={number}")
    return 0
