"""A page about an object: what works where. As HTML, Markdown, JSON, and a badge. Pure.

What a run measured is marked so; all else is derived from the object and the kernels' files. What is neither is
"not measured", or "unknown".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from kernel_matrix.report.html_page import environment
from kernel_matrix.report.markdown import escape
from kernel_matrix.results.text import first_line, plain
from kernel_matrix.shared.bpf.compatibility import Answer, Compatibility, Need, Played, Requirement, State, moved
from kernel_matrix.shared.outcomes.cells import Outcome

if TYPE_CHECKING:
    import jinja2

NOT_MEASURED = "not measured"
#: steps whose success means that a program works there
_STEPS = ("load", "attach")
_SIGNS = {State.YES: "✓", State.NO: "✗", State.UNKNOWN: "?"}
#: pixels of a character of the badge's font, and around a text
_CHARACTER, _AROUND = 6.5, 10
_GREEN, _ORANGE, _GREY = "#2e7d32", "#c77700", "#6b6b6b"


@dataclass(frozen=True, slots=True)
class Table:
    """A part of the page."""

    title: str
    text: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def json(page: Compatibility) -> bytes:
    """Return everything that is known, for programs."""
    return msgspec.json.format(msgspec.json.encode(page, order="deterministic"), indent=1) + b"\n"


def markdown(page: Compatibility) -> str:
    """Return the page as Markdown."""
    parts = [f"# {escape(page.object)}: what works where", *(escape(line) for line in _lines(page))]
    for table in tables(page):
        parts += [f"## {table.title}", table.text]
        head = "\n".join([_row(table.head), _row("---" for _ in table.head)])
        parts.append("\n".join([head, *(_row(escape(plain(field)) for field in row) for row in table.rows)]))
    return "\n\n".join(filter(None, parts)) + "\n"


def _row(fields: Iterable[str]) -> str:
    return f"| {' | '.join(fields)} |"


def html(page: Compatibility) -> str:
    """Return the page as one self-contained HTML file."""
    return _template().render(page=page, lines=list(_lines(page)), tables=tables(page), badge=badge(page))


def _lines(page: Compatibility) -> Iterator[str]:
    yield f"sha256 {page.sha256}"
    yield f"measured by {page.run}" if page.run else "nothing of it was measured: all of this is derived from files"
    yield from page.notes
    yield from (f"{kernel.name}: {kernel.unread}" for kernel in page.kernels if kernel.unread)


def tables(page: Compatibility) -> tuple[Table, ...]:
    """Return the tables of the page; those without rows are left out."""
    places = moved(page.requirements)
    missing = [one for one in page.requirements if one.missing and one not in places]
    unclear = [one for one in page.requirements if _unknown(one) and one not in [*places, *missing]]
    parts = (
        _programs(page),
        _kernels(page),
        _scenarios(page),
        _answers(page, "What moved", "Fields that are elsewhere, of another size, or missing on some kernels. CO-RE "
                 "finds those at a relocation; a fixed offset reads whatever is there.", places),
        _answers(page, "What a kernel lacks", "By the kernel's own types and configuration.", missing),
        _answers(page, "What the files do not say", "Only a run tells.", unclear),
        _needs(page),
    )  # fmt: skip
    return tuple(table for table in parts if table.rows)


def _unknown(one: Requirement) -> bool:
    return any(answer.state is State.UNKNOWN for answer in one.answers.values())


def _programs(page: Compatibility) -> Table:
    rows = []
    for program in page.programs:
        source = f"{program.file}:{program.line}" if program.file else ""
        oldest = [page.oldest(program.name, step) or _why_none(page, program.name, step) for step in _STEPS]
        kind = program.type or f"unknown to libbpf: {program.section}"
        rows.append((program.name, kind, program.target or program.attach, *oldest, source))
    head = ("program", "type", "attached to", "loads from, measured", "attaches from, measured", "source")
    return Table("Programs", "", head, tuple(rows))


def _why_none(page: Compatibility, program: str, step: str) -> str:
    tried = any(one.step == step for one in page.measured if one.program == program)
    return "on no kernel that was measured" if tried else NOT_MEASURED


def _kernels(page: Compatibility) -> Table:
    names = [kernel.name for kernel in page.kernels]
    rows = tuple((program.name, *(status(page, program.name, name) for name in names)) for program in page.programs)
    return Table("On each kernel", "", ("program", *(_head(page))), rows)


def _scenarios(page: Compatibility) -> Table:
    played = {(one.scenario, one.kernel): one for one in page.played}
    rows = tuple(
        (name, *(_played(played.get((name, kernel.name))) for kernel in page.kernels))
        for name in dict.fromkeys(one.scenario for one in page.played)
    )
    text = "Whether it does what the project declares, not only whether it loads. Measured."
    return Table("What it does", text, ("scenario", *_head(page)), rows)


def _played(one: Played | None) -> str:
    return NOT_MEASURED if one is None else f"{one.outcome.sign} {one.reason}".strip()


def _head(page: Compatibility) -> tuple[str, ...]:
    return tuple(f"{kernel.name} ({kernel.release})" if kernel.release else kernel.name for kernel in page.kernels)


def status(page: Compatibility, program: str, kernel: str) -> str:
    """Return what is known of a program on a kernel, first what was measured."""
    measured = [
        f"{one.step} {one.outcome.sign}{f' {one.reason}' if one.reason else ''}"
        + "".join(f"; {name}: {value}" for name, value in one.observed)
        for one in page.outcomes(program, kernel)
    ]
    doubts = page.doubts(program, kernel)
    wrong = [one.name for one in doubts if one.need is Need.CONTEXT]
    elsewhere = f"by its files reads another field: {', '.join(wrong)}"
    if measured:
        # attached, and wrong all the same
        return f"measured: {'; '.join(measured)}" + (f"; {elsewhere}" if wrong else "")
    if any(column.name == kernel and column.unread for column in page.kernels):
        return f"{NOT_MEASURED}; the kernel was not read"
    refusals = [f"{one.name} (at {one.answers[kernel].refused_at})" for one in page.refusals(program, kernel)]
    if refusals:
        return f"{NOT_MEASURED}; by its files refused for {', '.join(refusals)}"
    if wrong:
        return f"{NOT_MEASURED}; {elsewhere}"
    if lacking := [one.name for one in doubts]:
        return f"{NOT_MEASURED}; by its files lacks {', '.join(lacking)}, which counts where it is reached"
    return f"{NOT_MEASURED}; nothing against it in its files"


def _answers(page: Compatibility, title: str, text: str, requirements: Sequence[Requirement]) -> Table:
    names = [kernel.name for kernel in page.kernels]
    rows = []
    for one in requirements:
        name = f"{one.name} (not demanded)" if one.optional else one.name
        answers = (_answer(one.answers[kernel]) if kernel in one.answers else "unknown" for kernel in names)
        rows.append((str(one.need), name, _few(one.programs), *answers))
    return Table(title, text, ("need", "what", "programs", *_head(page)), tuple(rows))


def _answer(answer: Answer) -> str:
    refused = f" (refused at {answer.refused_at})" if answer.refused_at else ""
    return f"{_SIGNS[answer.state]} {answer.text}{refused}".strip()


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _needs(page: Compatibility) -> Table:
    """Return what each program uses; relocations are counted."""
    rows = []
    for program in page.programs:
        needs = page.of_program(program.name)
        named = {need: [one.name for one in needs if one.need is need] for need in Need}
        other = [*named[Need.FUNCTION], *named[Need.SYMBOL], *named[Need.CONFIG]]
        maps = [f"{name} ({page.maps[name]})" for name in program.maps]
        relocations = len(named[Need.RELOCATION])
        rows.append((program.name, ", ".join(named[Need.HELPER]), ", ".join(maps), ", ".join(other), str(relocations)))
    head = ("program", "helpers", "maps", "kernel functions, symbols, configuration", "CO-RE relocations")
    return Table("What it uses", "", head, tuple(rows))


# -- the badge


def working(page: Compatibility) -> tuple[str, ...] | None:
    """Return the kernels on which every program was measured to load and attach; None: nothing was measured.

    A step of which a run has no cell, as in a run that only loads, is not demanded; nor is a scenario that was not
    played on a kernel, but none may have failed there.
    """
    steps = {one.step for one in page.measured} & set(_STEPS)
    if not steps or not page.programs:
        return None
    wanted = {(program.name, step) for program in page.programs for step in steps}
    passed: dict[str, set[tuple[str, str]]] = {}
    for one in page.measured:
        if one.outcome is Outcome.PASS:
            passed.setdefault(one.kernel, set()).add((one.program, one.step))
    failed = {one.kernel for one in page.played if one.outcome is not Outcome.PASS}
    return tuple(
        kernel.name for kernel in page.kernels if wanted <= passed.get(kernel.name, set()) and kernel.name not in failed
    )


def badge(page: Compatibility) -> str:
    """Return a picture of one line for a README: the kernels on which the object works, as measured."""
    kernels, text, colour = working(page), NOT_MEASURED, _GREY
    if kernels is not None:
        text = ", ".join(kernels) or "none"
        colour = _GREEN if len(kernels) == len(page.kernels) else _ORANGE
    return _template("badge.svg.j2").render(
        label="works on kernels", text=first_line(text), colour=colour, character=_CHARACTER, around=_AROUND
    )


@cache
def _template(name: str = "compatibility.html.j2") -> jinja2.Template:
    from markupsafe import Markup

    templates = environment()
    templates.filters["markup"] = Markup
    return templates.get_template(name)
