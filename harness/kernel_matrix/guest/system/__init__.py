"""A guest's system: namespaces, traffic, processes, privileges, mounts, deadlines.

Not here: BPF (kernel_matrix.guest.bpf).
"""
