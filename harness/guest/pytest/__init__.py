"""The pytest of a guest: plugin, marks, fixtures, limits.

Not here: BPF (harness.guest.bpf).
"""
