"""The conformance suites: they run inside a guest."""
