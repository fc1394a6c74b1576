"""The command ``bench``: measure how fast the matrix is, beside the plain way and in the edit loop.

Not here: what a run records of itself (kernel_matrix.report.timeline).
"""
