"""What the command line calls beside the matrix.

Not here: options of the matrix (kernel_matrix.config).
"""
