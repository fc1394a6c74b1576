"""What a run leaves behind: its folder, the page, Markdown, pictures.

Not here: verdicts (kernel_matrix.results).
"""
