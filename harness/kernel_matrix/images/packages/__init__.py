"""Packages of a distribution: where they are, which are locked, and what is extracted from them.

Not here: the images that are built of it (kernel_matrix.images).
"""
