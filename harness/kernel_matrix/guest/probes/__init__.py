"""What a kernel is asked: its features, and what it allows with which capabilities.

Not here: judging the answers, which tests do.
"""
