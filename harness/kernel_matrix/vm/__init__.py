"""A guest as data, and what runs it: virtme-ng's command, slots, processes, QEMU's monitor.

Not here: the communication with its agent (kernel_matrix.relay).
"""
