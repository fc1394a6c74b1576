"""Objects and commands as tests: their items, and the fixtures of a project's own tests of its objects.

Not here: loading and attaching objects (kernel_matrix.guest.bpf.foreign).
"""
