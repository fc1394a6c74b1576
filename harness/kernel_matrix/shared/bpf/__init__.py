"""Objects as data that host and guest read: their file, types and values, what the table says of them.

Not here: what a run makes of them (kernel_matrix.shared.outcomes), and loading (kernel_matrix.guest.bpf).
"""
