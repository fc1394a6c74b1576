"""A test harness and conformance suite for eBPF programs across real kernels."""
