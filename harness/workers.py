"""The words that the controller and its workers exchange through xdist. Pure data, for both sides."""

from __future__ import annotations

#: what `python -m harness matrix` puts before the user's arguments. pytest takes every folder among those, an option's
#: value too, for a place of tests: it would look for its root there, and for the conftest.py that knows the options;
#: relative, because guests get it too
OWN_ARGUMENTS = ("-p", "harness.plugin", "--matrix", "-c", "pyproject.toml", "-o", "testpaths=suites")

#: the key of a worker's input (and the title of a report's section) under which a kernel is named
WORKER_KEY = "harness"

#: in a worker's input: the paths that a guest collects instead of the command line's; empty: those
ARGUMENTS = "arguments"

#: in a worker's input: a command to run in place of tests, the seconds it may take, and the channel for its output
COMMAND, TIMEOUT, OUTPUT = "command", "timeout", "output"

#: the key of a worker's output with the node ids that -k or -m left out there
DESELECTED = "deselected"

#: the title of a report's section that says why a step was refused, and what to do about it
DIAGNOSIS = "diagnosis"

#: the title of a report's section with what libbpf and the verifier said of a step that was refused
VERIFIER = "verifier log"

#: the title of a report's section with what the kernel logged during a test
KERNEL_LOG = "kernel log"

#: the start of a user property with which a test hands facts to the host; behind it is their name, its value is JSON
FACTS = "facts:"
