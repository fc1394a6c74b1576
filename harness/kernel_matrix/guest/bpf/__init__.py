"""BPF in a guest: libbpf, single steps, objects, the verifier, loaders.

Not here: which steps are tried with which privileges (kernel_matrix.guest.probes).
"""
