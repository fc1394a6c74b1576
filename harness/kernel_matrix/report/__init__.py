"""The output of a run: its folder, the page, Markdown, pictures.

Not here: verdicts (kernel_matrix.results).
"""
