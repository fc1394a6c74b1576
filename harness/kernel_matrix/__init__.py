"""Run tests of eBPF programs inside a matrix of real kernels.

The command imports this package before pytest starts, which would warn of that: PYTEST_DONT_REWRITE.
"""
