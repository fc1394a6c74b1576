"""Saved guests: their memory, the command that restores them, and which of them there are.

Not here: booting and restoring (kernel_matrix.relay.boot).
"""
