"""Sets of capabilities and what the kernel answers to each: notation and search. Pure: the standard library only.

Sixteen sets, every subset of four capabilities, have sixteen answers. Written down as rules they are one line:

    EPERM | BPF+NET_ADMIN EACCES | BPF+NET_ADMIN+PERFMON ok | SYS_ADMIN ok

reads: EPERM, but EACCES for a set with BPF and NET_ADMIN, but ok for one with PERFMON as well, but ok for one with
SYS_ADMIN; the last rule whose capabilities are all in the set decides. Every table has exactly one such line.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

#: in the order of every notation; SYS_ADMIN, which stands for the others, last, so that its rule comes last too
CAPABILITIES = ("BPF", "NET_ADMIN", "PERFMON", "SYS_ADMIN")
#: what a process of another uid than a file's owner needs for the file
FILE_CAPABILITIES = ("DAC_READ_SEARCH", "DAC_OVERRIDE")
OK = "ok"
#: the set without any capability, and no set at all
NOTHING = "nothing"
NEVER = "never"

Caps = frozenset[str]
#: what came of a step with each set: ``ok`` or the errno's name
Answers = Mapping[Caps, str]

_ORDER = {name: number for number, name in enumerate((*CAPABILITIES, *FILE_CAPABILITIES))}


def subsets(names: Sequence[str] = CAPABILITIES) -> tuple[Caps, ...]:
    """Return every subset, each after all of its own subsets: counting, with the first name as the lowest bit."""
    return tuple(
        frozenset(name for bit, name in enumerate(names) if number >> bit & 1) for number in range(1 << len(names))
    )


_SUBSETS = subsets()


def show(caps: Iterable[str]) -> str:
    """Write a set: ``BPF+NET_ADMIN``, or ``nothing``."""
    return "+".join(sorted(caps, key=_ORDER.__getitem__)) or NOTHING


def parse(text: str) -> Caps:
    """Read what ``show`` wrote; raises ValueError for a capability that is not known."""
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
    """Return the sets of which no other is a subset, in counting order: an antichain."""
    found = set(sets)
    return tuple(sorted((one for one in found if not any(other < one for other in found)), key=_rank))


def search(works: Callable[[Caps], bool], names: Sequence[str]) -> tuple[Caps, ...]:
    """Find the minimal sets that work by trying: small sets first, and none that contains one that works.

    Everything comes before all: a capability never takes away what a smaller set allows, so what is refused with every
    one is refused with any.
    """
    found: list[Caps] = []
    if not works(frozenset(names)):
        return ()
    for size in range(len(names)):
        candidates = [frozenset(combination) for combination in itertools.combinations(names, size)]
        found += [one for one in candidates if not any(less <= one for less in found) and works(one)]
    return tuple(sorted(found, key=_rank)) or (frozenset(names),)


def show_sets(sets: Iterable[Caps]) -> str:
    """Write minimal sets: ``BPF+PERFMON | SYS_ADMIN``; ``nothing`` when none is needed, ``never`` when none works."""
    return " | ".join(show(one) for one in sorted(sets, key=_rank)) or NEVER


def parse_sets(text: str) -> tuple[Caps, ...]:
    """Read what ``show_sets`` wrote; raises ValueError."""
    return () if text == NEVER else tuple(parse(one) for one in text.split(" | "))


def describe_change(before: Sequence[Caps], after: Sequence[Caps]) -> Iterator[str]:
    """Say how the minimal sets changed: which grew, shrank, came or went; a set is compared with the nearest one."""
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


def _rank(caps: Caps) -> tuple[int, int]:
    return sum(1 << _ORDER[name] for name in caps), len(caps)
