"""The commands other than the matrix, called by the command line.

Not here: options of the matrix (kernel_matrix.config).
"""
