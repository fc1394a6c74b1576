"""The words that the controller and its workers exchange through xdist. Pure data, for both sides."""

from __future__ import annotations

#: what `python -m harness matrix` puts before the user's arguments. pytest takes every folder among those, an option's
#: value too, for a place of tests: it would look for its root there, and for the conftest.py that knows the options;
#: relative, because guests get it too. Hypothesis is for the harness's own tests; importing it takes 0.3 s
OWN_ARGUMENTS = (
    *("-p", "harness.plugin", "--matrix", "-c", "pyproject.toml", "-o", "testpaths=suites"),
    *("-p", "no:hypothesispytest"),
)

#: the key of a worker's input (and the title of a report's section) under which a kernel is named
WORKER_KEY = "harness"

#: in a worker's input: the paths that a guest collects instead of the command line's; empty: those
ARGUMENTS = "arguments"

#: in a worker's input: the file or folder whose tests it runs first; empty: in the order of collection
BEGINS = "begins"

#: in a worker's input: a command to run in place of tests, and the seconds it may take
COMMAND, TIMEOUT = "command", "timeout"

#: in a worker's input: whether the guest stays when a test has failed
KEEP = "keep"

#: in a worker's input: the channel for a command's output, and for a kept guest's sign of life
OUTPUT = "output"

#: the virtio-serial port at which a guest that is kept is entered
ENTER_NAME = "harness-enter"

#: the key of a worker's output with the node ids that -k or -m left out there
DESELECTED = "deselected"

#: the title of a report's section that says why a step was refused, and what to do about it
DIAGNOSIS = "diagnosis"

#: the title of a report's section with what libbpf and the verifier said of a step that was refused
VERIFIER = "verifier log"

#: the title of a report's section with what the kernel logged during a test
KERNEL_LOG = "kernel log"

#: the title of a report's section with where the other threads of a test stood that took too long
STACKS = "stacks"

#: the start of a user property with which a test hands facts to the host; behind it is their name, its value is JSON
FACTS = "facts:"

#: a report's user property: what went over the failing test's veth pairs, a capture file in base64
PCAP = "pcap"
