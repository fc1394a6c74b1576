"""What is expected of a test or an object and what became of it, as data of both halves.

Not here: verdicts on a whole run (kernel_matrix.results).
"""
