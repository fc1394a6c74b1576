"""The pytest of a guest: plugin, marks, fixtures, limits.

Not here: BPF (kernel_matrix.guest.bpf).
"""
