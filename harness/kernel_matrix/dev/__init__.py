"""The system packages that a developer's machine needs.

Not here: the needs of a run.
"""
