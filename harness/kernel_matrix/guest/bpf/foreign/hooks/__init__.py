"""Where programs of any type are attached: the place that their section names, or a target that is made.

Not here: loading them (kernel_matrix.guest.bpf.foreign.loading).
"""
