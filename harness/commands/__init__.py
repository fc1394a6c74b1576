"""What the command line calls beside the matrix.

Not here: options of the matrix (harness.config).
"""
