"""BPF sources to objects: the compiler's command and its errors.

Not here: loading them (kernel_matrix.guest.bpf).
"""
