"""What a developer's machine needs: packages of the system, linters that are built.

Not here: what a run needs.
"""
