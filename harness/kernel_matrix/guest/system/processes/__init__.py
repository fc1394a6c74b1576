"""Processes of a test: their privileges, scripted calls, and who preempts whom.

Not here: commands of a user (kernel_matrix.guest.system.child).
"""
