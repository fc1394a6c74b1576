"""Probe a kernel: its features, and what it permits with which capabilities.

Not here: checking the results, which tests do.
"""
