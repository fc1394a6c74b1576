"""What loaders are made of: the client of a loader that is a program, and compiling with bcc.

Not here: the loaders themselves, a module each (kernel_matrix.guest.bpf.loaders).
"""
