"""What a run leaves behind: its folder, the page, Markdown, pictures.

Not here: verdicts (harness.results).
"""
