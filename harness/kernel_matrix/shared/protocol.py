"""The words that the controller and its workers exchange through xdist. Pure data, for both sides."""

from __future__ import annotations

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
