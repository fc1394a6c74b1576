"""What a run has found, judged and compared. Pure.

Not here: how it is shown (kernel_matrix.report).
"""
