"""What host and guest say to each other: the input of workers, protocols, a guest's console.

Not here: the processes that carry it (kernel_matrix.relay).
"""
