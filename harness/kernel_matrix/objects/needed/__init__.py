"""What an object needs of a kernel, and whether a kernel's files have it. Pure.

Not here: the rules by which types are resolved (kernel_matrix.objects.types).
"""
