"""From configuration and command line to the guests of a run and their tests.

Not here: booting guests (kernel_matrix.vm).
"""
