"""What to do about a refusal: capabilities and sysctls as values, and their text. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing to do: what to give to whoever asked, what to set on the machine, or else advice."""

    #: one line; empty where the capabilities and sysctls say it all
    advice: str = ""
    #: to be given to who was refused, beside what it has
    capabilities: tuple[str, ...] = ()
    #: sysctl -> the value to set, the highest that is low enough
    sysctls: Mapping[str, int] = field(default_factory=dict)
    #: what the verifier may ask for besides, once it sees the program: only some programs need it
    verifier: tuple[str, ...] = ()
    #: the capabilities have to be of the initial user namespace, in which the asker is not
    outside: bool = False

    def __str__(self) -> str:
        return render(self)


def render(remedy: Remedy) -> str:
    """Return the one line that says what to do."""
    if remedy.advice:
        return remedy.advice
    where = "run it in the initial user namespace with" if remedy.outside else "give it"
    parts = [f"{where} {joined(remedy.capabilities)}"] if remedy.capabilities else []
    parts += [f"set {name} to {value}" for name, value in remedy.sysctls.items()]
    return " and ".join(parts) + _verifier(remedy)


def _verifier(remedy: Remedy) -> str:
    if not remedy.verifier:
        return ""
    return f" (and {joined(remedy.verifier)}, if the verifier then refuses a loop, a call or a computed pointer)"


def joined(names: Sequence[str]) -> str:
    """Return the names in a sentence."""
    return " and ".join(names)
