"""The project's workflow and action: jobs, cache keys, commands that only CI calls.

Not here: anything that a user's machine needs.
"""
