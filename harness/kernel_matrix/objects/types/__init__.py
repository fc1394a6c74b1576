"""Types of kernels and objects, and what an object reads by them. Pure.

Not here: what a whole object needs of a kernel (kernel_matrix.objects.needed).
"""
