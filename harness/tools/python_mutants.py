"""The mutants of a Python module, made by cosmic-ray's operators. Pure.

A mutant is named by the function in which it is and by the line before and after, so that its name stays when lines
move. Annotations, and which arguments are passed by keyword, are mypy's to check: what differs in them alone is no
mutant.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Name(NamedTuple):
    """What identifies a mutant of a module."""

    #: the innermost function or class, such as ``Matrix.of``; empty: the module
    place: str
    #: the lines that it changes, without what is around them
    before: str
    after: str
    #: which of the mutants with these lines in that place
    number: int = 1

    def __str__(self) -> str:
        number = f" ({self.number})" if self.number > 1 else ""
        return f"{self.place or 'module'}{number}: {self.before}\n{' ' * 8}-> {self.after or '(deleted)'}"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one change."""

    name: Name
    #: the number of its first changed line
    line: int
    #: the whole text of the module
    source: str


@dataclass(frozen=True, slots=True)
class Span:
    """A function or class of a module, with its lines, decorators included."""

    name: str
    first: int
    last: int
    function: bool
    #: the first line of its body
    body: int

    def has(self, line: int) -> bool:
        """Whether a line is in it."""
        return self.first <= line <= self.last


def spans(source: str) -> list[Span]:
    """Return the functions and classes of a module, the outer before the inner."""
    return list(_spans(ast.parse(source), ""))


def _spans(node: ast.AST, prefix: str) -> Iterator[Span]:
    for child in ast.iter_child_nodes(node):
        inner = prefix
        if isinstance(child, _Function | ast.ClassDef):
            first = min(line.lineno for line in (child, *child.decorator_list))
            last = child.end_lineno or first
            yield Span(prefix + child.name, first, last, isinstance(child, _Function), child.body[0].lineno)
            inner = f"{prefix}{child.name}."
        yield from _spans(child, inner)


def mutants(source: str, without: Collection[str] = ()) -> list[Mutant]:
    """Return all mutants of a source, in the order of their lines; ``without``: operators that are not applied."""
    places = spans(source)
    numbers: Counter[Name] = Counter()
    made = []
    behind = ""
    # statement by statement: to parse a whole module for each mutant takes ten times as long
    for statement in (node.get_code() for node in get_ast(source).children):
        ahead = source[len(behind) + len(statement) :]
        for row, text in _variations(statement, without):
            line = behind.count("\n") + row
            place = max((span for span in places if span.has(line)), key=lambda span: span.first, default=None)
            name = Name(place.name if place else "", *_lines(statement, text))
            numbers[name] += 1
            made.append(Mutant(name._replace(number=numbers[name]), line, behind + text + ahead))
        behind += statement
    return made


def _variations(statement: str, without: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield the row and the text of all different changes of a statement."""
    seen = {_meaning(statement)}
    for row, text in sorted(_texts(statement, without)):
        meaning = _meaning(text)
        if meaning is not None and meaning not in seen:
            seen.add(meaning)
            yield row, text


def _texts(statement: str, without: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield the row and the text of whatever the operators make; those that need arguments are left out."""
    nodes = list(ast_nodes(get_ast(statement)))
    for name in operator_names():
        operator_class = get_operator(name)
        if name in without or operator_class.arguments():
            continue
        operator: Any = operator_class()
        rows = [start[0] for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, row in enumerate(rows):
            yield row, mutate_code(statement, operator, occurrence)


def _meaning(source: str) -> str | None:
    """Return what sources that do the same have in common: the syntax tree without annotations; None: no mutant."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    if any(isinstance(node, ast.Compare) and _orders_text(node) for node in ast.walk(tree)):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, _Function):
            node.returns = None
        elif isinstance(node, ast.arguments):
            # the star before keyword arguments is a product to cosmic-ray: how arguments are passed is mypy's, too
            node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
            node.defaults += [default for default in node.kw_defaults if default]
            node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
    return ast.dump(tree)


def _orders_text(node: ast.Compare) -> bool:
    """Whether a comparison asks if something is before or behind a text: no mistake that anybody makes."""
    texts = [operand for operand in (node.left, *node.comparators) if isinstance(operand, ast.Constant)]
    orders = any(isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for operator in node.ops)
    return orders and any(isinstance(text.value, str) for text in texts)


def _lines(before: str, after: str) -> tuple[str, str]:
    """Return the lines that differ, of either text: those between the equal beginning and the equal end."""
    old, new = before.splitlines(), after.splitlines()
    start = next(number for number, (one, other) in enumerate(zip_longest(old, new)) if one != other)
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    old_lines, new_lines = old[start : len(old) - end], new[start : len(new) - end]
    return " ".join(map(str.strip, old_lines)), " ".join(" ".join(line.split()) for line in new_lines)
