"""From TOML and the command line to frozen data.

Not here: which guests are booted for it (kernel_matrix.plan).
"""
