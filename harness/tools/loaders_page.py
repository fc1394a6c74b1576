"""Write the tables of docs/loaders.md from the observations in baselines/matrix (``nox -s docs`` runs this).

A table is between ``<!-- observed: NAME -->`` and ``<!-- end -->``. It has a row for each observation ``NAME: row`` and
a column for each loader. Where kernels differ, a value names its kernels.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import generated_page

from kernel_matrix.config import manifest, project
from kernel_matrix.results import baseline
from kernel_matrix.results.baseline import Expectation
from kernel_matrix.shared.outcomes.expect import loader_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "loaders.md"
#: the observation with a loader's version, which is in the head of its column
VERSION = "version"
_TABLE = re.compile(r"(<!-- observed: (?P<name>[^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)

#: what Markdown reads as more than itself; an underscore within a word is none
_SPECIAL = re.compile(r"[\\*<\[]|(?<![^\W_])_|_(?![^\W_])")

#: observation -> loader -> kernel -> value
Observations = Mapping[str, Mapping[str, Mapping[str, str]]]


def collected(recorded: Mapping[str, Expectation], kernels: Sequence[str], loaders: Sequence[str]) -> Observations:
    """Sort the observations of these kernels; raises ValueError where two tests observed different values."""
    by_name: dict[str, dict[str, dict[str, str]]] = {}
    for kernel in kernels:
        for test, values in recorded[kernel].observed.items():
            loader = loader_of(test, loaders)
            for name, value in values.items() if loader else ():
                of_loader = by_name.setdefault(name, {}).setdefault(loader, {})
                if of_loader.setdefault(kernel, value) != value:
                    raise ValueError(f"{kernel}, {loader}: {name} was observed as {of_loader[kernel]!r} and {value!r}")
    return by_name


def page(text: str, observations: Observations, kernels: Sequence[str], loaders: Sequence[str]) -> str:
    """Return the page with its tables made anew; raises ValueError for an observation that no table has."""
    tables = [match["name"] for match in _TABLE.finditer(text)]
    if lost := [name for name in observations if name.partition(": ")[0] not in {VERSION, *tables}]:
        raise ValueError(f"{lost[0]}: the page has no <!-- observed: {lost[0].partition(': ')[0]} -->")
    return _TABLE.sub(lambda match: match[1] + _table(match["name"], observations, kernels, loaders) + match[3], text)


def _table(title: str, observations: Observations, kernels: Sequence[str], loaders: Sequence[str]) -> str:
    rows = {name.partition(": ")[2]: of for name, of in observations.items() if name.partition(": ")[0] == title}
    present = [loader for loader in loaders if any(loader in of for of in rows.values())]
    heads = [_head(loader, observations, kernels) for loader in present]
    lines = [f"On {', '.join(kernels)}:", "", f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(present)}"]
    for row in sorted(rows, key=lambda row: row.strip("`").lower()):
        cells = [_cell(loader, f"{title}: {row}", observations, kernels) for loader in present]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _head(loader: str, observations: Observations, kernels: Sequence[str]) -> str:
    """Return a column's head: the loader, its version, and the kernels on which it did not run."""
    own = _kernels_of(loader, observations, kernels)
    without = [kernel for kernel in kernels if kernel not in own]
    head = f"{loader} {_cell(loader, VERSION, observations, kernels)}"
    return f"{head} (not {_named(without, kernels)})" if without else head


def _kernels_of(loader: str, observations: Observations, kernels: Sequence[str]) -> list[str]:
    ran = {kernel for of in observations.values() for kernel in of.get(loader, {})}
    return [kernel for kernel in kernels if kernel in ran]


def _cell(loader: str, name: str, observations: Observations, kernels: Sequence[str]) -> str:
    # the column says whose words they are
    values = observations.get(name, {}).get(loader, {})
    own = _kernels_of(loader, observations, kernels)
    return by_kernel({kernel: value.replace(f": {loader}: ", ": ", 1) for kernel, value in values.items()}, own)


def by_kernel(values: Mapping[str, str], kernels: Sequence[str]) -> str:
    """Return the value, or where kernels differ each with its kernels: ``5.10: x; from 6.1: y``."""
    groups: dict[str, list[str]] = {}
    for kernel in kernels:
        if kernel in values:
            groups.setdefault(values[kernel], []).append(kernel)
    if len(groups) == 1 and len(values) == len(kernels):
        return _escaped(*groups)
    return "; ".join(f"{_named(group, kernels)}: {_escaped(value)}" for value, group in groups.items()) or "-"


def _named(group: Sequence[str], kernels: Sequence[str]) -> str:
    """Return the names of some kernels: ``from 6.1`` for it and all behind, ``5.10 to 6.12``, or ``5.10, 6.12``."""
    first, last = kernels.index(group[0]), kernels.index(group[-1])
    if len(group) == 1 or last - first + 1 != len(group):
        return ", ".join(group)
    return f"from {group[0]}" if last == len(kernels) - 1 else f"{group[0]} to {group[-1]}"


def _escaped(value: str) -> str:
    """Return a value as Markdown in a table's cell; what it has between backticks is code."""
    parts = value.split("`") if value.count("`") % 2 == 0 else [value.replace("`", "'")]
    return "`".join(
        part if number % 2 else _SPECIAL.sub(r"\\\g<0>", part) for number, part in enumerate(parts)
    ).replace("|", r"\|")


def made() -> str:
    """Return the page with its tables made from the baseline."""
    here = project.load(ROOT)
    assert here is not None
    recorded = baseline.read(here.matrix_baselines)
    names = [kernel.name for kernel in manifest.load(here.images).kernels if kernel.name in recorded]
    kernels = sorted((name for name in names if recorded[name].observed), key=_age)
    return page(PAGE.read_text(), collected(recorded, kernels, here.all_loaders), kernels, here.all_loaders)


def _age(kernel: str) -> tuple[list[int], str]:
    """Return the key that sorts kernels by their versions, those of a flavour behind the plain one."""
    version, _, flavour = kernel.partition("-")
    return [int(number) for number in version.split(".")], flavour


if __name__ == "__main__":
    sys.exit(generated_page.main(sys.argv[1:], PAGE, made(), "the observations in baselines/matrix"))
