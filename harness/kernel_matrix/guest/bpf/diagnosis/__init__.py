"""Collect in a guest what `kernel_matrix.diagnose` needs to explain a refused step.

Not here: the rules that find its cause and remedy (kernel_matrix.diagnose).
"""
