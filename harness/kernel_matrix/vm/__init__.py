"""A guest as data and what runs it: virtme-ng's command, slots, processes, QEMU's monitor.

Not here: what is said to its agent (kernel_matrix.relay).
"""
