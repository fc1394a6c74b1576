"""The end of a run for its reader: how many mutants had which fate, and each that is wrong. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.table import Table

from kernel_matrix.commands.mutation.making.mutant import Mutant
from kernel_matrix.commands.mutation.outcomes import Complaint, Fate, Outcome


def counts(kernel: str, mutants: Iterable[Mutant], outcomes: Mapping[str, Outcome]) -> Table:
    """Return the table of a kernel: a row for each program, the list's mistakes and the generated mutants apart.

    It has the columns of fates that there were.
    """
    rows: dict[tuple[str, str], Counter[Fate]] = {}
    for mutant in mutants:
        kind = "mistakes" if mutant.breaks else "generated"
        rows.setdefault((mutant.program, kind), Counter())[outcomes[mutant.id].fate] += 1
    fates = [fate for fate in Fate if any(row[fate] for row in rows.values())]
    table = Table("program", "mutants", *map(str, fates), "all", title=f"mutants on {kernel}")
    for (program, kind), row in sorted(rows.items()):
        table.add_row(program, kind, *[str(row[fate] or "") for fate in fates], str(row.total()))
    return table


def wrong(complaints: Sequence[Complaint], mutants: Mapping[str, Mutant]) -> Iterator[str]:
    """Yield the lines about each complaint: the mutant, its place, its change, what it breaks."""
    for complaint in complaints:
        mutant = mutants[complaint.mutant]
        yield f"{complaint.kernel}: {mutant.id}: {complaint.text}"
        yield f"  {mutant.file}:{mutant.line}"
        yield from (f"  {line}" for line in mutant.diff)
        if mutant.breaks:
            yield f"  breaks: {mutant.breaks}"


def killers(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield how many mutants each test killed, the most first."""
    kills = Counter(outcome.by for outcome in outcomes if outcome.fate is Fate.KILLED)
    for test, count in kills.most_common():
        yield f"{count:5} {test}"
