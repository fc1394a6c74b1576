"""From configuration and command line to what is booted and what runs where.

Not here: booting it.
"""
