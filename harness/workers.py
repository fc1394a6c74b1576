"""The words that the controller and its workers exchange through xdist. Pure data, for both sides."""

from __future__ import annotations

#: the key of a worker's input (and the title of a report's section) under which a kernel is named
WORKER_KEY = "harness"

#: the key of a worker's output with the node ids that -k or -m left out there
DESELECTED = "deselected"

#: the title of a report's section that says why a step was refused, and what to do about it
DIAGNOSIS = "diagnosis"
