"""Commands that run in one guest: shell, run, rerun.

Not here: the guest's side of a terminal (kernel_matrix.guest.system.upkeep.terminal).
"""
