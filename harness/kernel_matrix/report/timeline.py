"""The timeline of a run, ``timeline.json`` of its folder: how long each stage took."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "timeline.json"


@dataclass(slots=True)
class Timeline:
    """Seconds from the start of the run's process; 0 for what the run has not reached."""

    #: the modules that a run needs are imported
    imported: float = 0.0
    #: kernels, images and objects are ready; guests start
    planned: float = 0.0
    #: the first guest has collected
    collected: float = 0.0
    first_test: float = 0.0
    last_test: float = 0.0
    #: all guests are released; the results are judged next
    judged: float = 0.0
    #: all results are written
    ended: float = 0.0
