"""One pytest: the controller's plugins, its workers and their scheduler.

Not here: what runs in a guest (kernel_matrix.guest.pytest).
"""
