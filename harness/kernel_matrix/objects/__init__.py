"""Compile BPF sources to objects: the compiler's command and its errors.

Not here: loading objects (kernel_matrix.guest.bpf).
"""
