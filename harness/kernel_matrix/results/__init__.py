"""The results of a run, judged and compared. Pure.

Not here: how it is shown (kernel_matrix.report).
"""
