"""From TOML and the command line to frozen data.

Not here: what is booted for it (kernel_matrix.plan).
"""
