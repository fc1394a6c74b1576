"""Makes the matrix's options known to every pytest that starts here, on the host and in the guests."""

pytest_plugins = ["harness.plugin"]
