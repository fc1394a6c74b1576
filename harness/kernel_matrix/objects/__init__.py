"""Compile BPF sources to objects, and read objects and kernels' types without loading anything.

Not here: loading objects (kernel_matrix.guest.bpf).
"""
