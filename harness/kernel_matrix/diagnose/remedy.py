"""The remedy of a refusal: capabilities and sysctls as values, and their text. Pure data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Remedy:
    """One remedy: capabilities to give to the process, sysctls to set on the machine, or other advice."""

    #: one line; empty when the capabilities and sysctls are sufficient
    advice: str = ""
    #: to be given to the refused process, in addition to those that it has
    capabilities: tuple[str, ...] = ()
    #: sysctl -> the value to set, the highest that is low enough
    sysctls: Mapping[str, int] = field(default_factory=dict)
    #: capabilities that the verifier may require in addition, for some programs only
    verifier: tuple[str, ...] = ()
    #: whether the capabilities must be in the initial user namespace, which is not that of the process
    outside: bool = False

    def __str__(self) -> str:
        return render(self)


def render(remedy: Remedy) -> str:
    """Return the remedy as one line."""
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
    """Join names for a sentence."""
    return " and ".join(names)
