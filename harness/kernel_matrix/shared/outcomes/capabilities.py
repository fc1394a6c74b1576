"""Sets of capabilities and the kernel's answer to each: notation and search. Pure, with the standard library only.

The sixteen subsets of four capabilities have sixteen answers. Written as rules, they are one line:

    EPERM | BPF+NET_ADMIN EACCES | BPF+NET_ADMIN+PERFMON ok | SYS_ADMIN ok

This reads: EPERM, but EACCES for a set with BPF and NET_ADMIN, but ok if it also has PERFMON, and ok for a set with
SYS_ADMIN. The last rule whose capabilities are all in the set decides. Every table has exactly one such line.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

#: in the order of every notation; SYS_ADMIN, which implies the others, is last, so that its rule is last too
CAPABILITIES = ("BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN")
#: what a process that does not own a file needs to access it
FILE_CAPABILITIES = ("DAC_READ_SEARCH", "DAC_OVERRIDE")
OK = "ok"
#: the set without any capability, and no set at all
NOTHING = "nothing"
NEVER = "never"

Caps = frozenset[str]
#: the result of a step with each set: ``ok`` or the errno's name
Answers = Mapping[Caps, str]

_ORDER = {name: number for number, name in enumerate((*CAPABILITIES, *FILE_CAPABILITIES))}


def subsets(names: Sequence[str] = CAPABILITIES) -> tuple[Caps, ...]:
    """Return every subset in counting order, with the first name as the lowest bit; a set follows its own subsets."""
    return tuple(
        frozenset(name for bit, name in enumerate(names) if number >> bit & 1) for number in range(1 << len(names))
    )


_SUBSETS = subsets()


def show(caps: Iterable[str]) -> str:
    """Write a set: ``BPF+NET_ADMIN``, or ``nothing``."""
    return "+".join(sorted(caps, key=_ORDER.__getitem__)) or NOTHING


def parse(text: str) -> Caps:
    """Read what ``show`` wrote; raises ValueError for an unknown capability."""
    caps = frozenset() if text == NOTHING else frozenset(text.split("+"))
    if unknown := caps - _ORDER.keys():
        raise ValueError(f"unknown capability {', '.join(sorted(unknown))!s} in {text!r}")
    return caps


def rules(answers: Answers) -> str:
    """Write a table of all sixteen sets as the shortest list of rules that names the sets in counting order."""
    written: list[tuple[Caps, str]] = []
    for caps in _SUBSETS:
        if not written or _decide(written, caps) != answers[caps]:
            written.append((caps, answers[caps]))
    return " | ".join(f"{show(caps)} {answer}" if caps else answer for caps, answer in written)


def answers(text: str) -> dict[Caps, str]:
    """Read what ``rules`` wrote; raises ValueError."""
    read: list[tuple[Caps, str]] = []
    for rule in text.split(" | "):
        caps, space, answer = rule.rpartition(" ")
        if bool(space) != bool(read) or not answer:
            raise ValueError(f"not a list of rules: {text!r}")
        read.append((parse(caps) if space else frozenset(), answer))
    return {caps: _decide(read, caps) for caps in _SUBSETS}


def _decide(written: Sequence[tuple[Caps, str]], caps: Caps) -> str:
    return next(answer for needed, answer in reversed(written) if needed <= caps)


def minimal(sets: Iterable[Caps]) -> tuple[Caps, ...]:
    """Return the sets that have no other of them as a subset, in counting order: an antichain."""
    candidates = set(sets)
    return tuple(sorted((caps for caps in candidates if not any(smaller < caps for smaller in candidates)), key=_rank))


def then(first: Answers, second: Answers) -> dict[Caps, str]:
    """Return the result of two steps by one process: the first refusal."""
    return {caps: second[caps] if answer == OK else answer for caps, answer in first.items()}


def both(one: Iterable[Caps], other: Iterable[Caps]) -> tuple[Caps, ...]:
    """Return the minimal sets with which two steps work, given the minimal sets of first."""
    return minimal(first | second for first, second in itertools.product(one, list(other)))


def witnesses(answers: Answers) -> tuple[Caps, ...]:
    """Return the first and the last set, in counting order, that get each answer."""
    sets: dict[str, list[Caps]] = {}
    for caps in _SUBSETS:
        sets.setdefault(answers[caps], []).append(caps)
    chosen = {caps for group in sets.values() for caps in (group[0], group[-1])}
    return tuple(caps for caps in _SUBSETS if caps in chosen)


def search(
    works: Callable[[Caps], bool], names: Sequence[str], known: Mapping[Caps, bool] | None = None
) -> tuple[Caps, ...]:
    """Find the minimal sets that work by trying; ``known``: sets whose answer is known already.

    A further capability never turns success into a refusal. So a superset of a working set is not tried, nor a subset
    of a refused one. The largest remaining set is tried first, so each refused set is as large as possible; a working
    set is reduced to a minimal one. Raises ValueError when ``known`` contradicts itself.
    """
    known = known or {}
    working = list(minimal(caps for caps, answer in known.items() if answer))
    refused = [caps for caps, answer in known.items() if not answer]
    if any(smaller <= larger for smaller in working for larger in refused):
        raise ValueError("a larger set is refused than one that works")

    def decided(caps: Caps) -> bool | None:
        if any(smaller <= caps for smaller in working):
            return True
        return False if any(caps <= larger for larger in refused) else None

    def enough(caps: Caps) -> bool:
        answer = decided(caps)
        if answer is None:
            answer = works(caps)
            (working if answer else refused).append(caps)
        return answer

    for candidate in sorted(subsets(names), key=len, reverse=True):
        if decided(candidate) is None and enough(candidate):
            least = candidate
            for name in names:
                if name in least and enough(least - {name}):
                    least -= {name}
    return minimal(working)


def show_sets(sets: Iterable[Caps]) -> str:
    """Write minimal sets: ``BPF+PERFMON | SYS_ADMIN``; ``nothing`` when none is needed, ``never`` when none works."""
    return " | ".join(show(one) for one in sorted(sets, key=_rank)) or NEVER


def parse_sets(text: str) -> tuple[Caps, ...]:
    """Read what ``show_sets`` wrote; raises ValueError."""
    return () if text == NEVER else tuple(parse(one) for one in text.split(" | "))


def describe_change(before: Sequence[Caps], after: Sequence[Caps]) -> Iterator[str]:
    """Describe which minimal sets grew, shrank, appeared or disappeared; a set is compared with the nearest one."""
    gone = [one for one in before if one not in after]
    come = [one for one in after if one not in before]
    for old in list(gone):
        new = min((one for one in come if one < old or old < one), key=lambda one: len(one ^ old), default=None)
        if new is not None:
            gone.remove(old)
            come.remove(new)
            yield f"minimal set {'grew' if old < new else 'shrank'}: {_braced(old)} -> {_braced(new)}"
    yield from (f"minimal set gone: {_braced(one)}" for one in gone)
    yield from (f"new minimal set: {_braced(one)}" for one in come)


def _braced(caps: Caps) -> str:
    return f"{{{', '.join(sorted(caps, key=_ORDER.__getitem__))}}}"


def _rank(caps: Caps) -> int:
    return sum(1 << _ORDER[name] for name in caps)
