"""What a run shows and records of its course: progress, output of commands, the timeline.

Not here: reports of its results (kernel_matrix.report).
"""
