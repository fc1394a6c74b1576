"""The keys that the controller and its workers exchange through xdist. Pure data, for both sides."""

from __future__ import annotations

#: the virtio-serial port through which a user enters a kept guest
ENTER_NAME = "harness-enter"

#: the serial number of the disk with the kernel's headers (/sys/block/*/serial)
HEADERS_DISK = "kernel-headers"

#: the key of a worker's output with the node ids that -k or -m left out there
DESELECTED = "deselected"

#: the title of a report's section with the cause of a refused step and its remedy
DIAGNOSIS = "diagnosis"

#: the title of a report's section with the messages of libbpf and the verifier about a refused step
VERIFIER = "verifier log"

#: the title of a report's section with what the kernel logged during a test
KERNEL_LOG = "kernel log"

#: the title of a report's section with the stacks of the other threads of a test that took too long
STACKS = "stacks"

#: the start of the name of a user property with facts for the host; the facts' name follows, the value is JSON
FACTS = "facts:"

#: a report's user property: what a loader has compiled in this phase (`kernel_matrix.shared.bpf.compiled`), in base64
COMPILED = "compiled"

#: a report's user property: what a test has observed, a name and a value as JSON
OBSERVED = "observed"

#: a report's user property: something is left in this guest's kernel, so that it is not used for another test
SPENT = "spent"

#: a report's user property: the traffic on the failing test's veth pairs, a capture file in base64
PCAP = "pcap"
