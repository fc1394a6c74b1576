"""When a run reached what, for whoever wants it shorter: ``timeline.json`` of its folder."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "timeline.json"


@dataclass(slots=True)
class Timeline:
    """Seconds from the start of the run's process; 0 where the run has not come that far."""

    #: all that a run needs is imported
    imported: float = 0.0
    #: kernels, images and objects are there; guests are started
    planned: float = 0.0
    #: the first guest has collected
    collected: float = 0.0
    first_test: float = 0.0
    last_test: float = 0.0
    #: all guests are let go, and the results are to be judged
    judged: float = 0.0
    #: everything is written
    ended: float = 0.0
