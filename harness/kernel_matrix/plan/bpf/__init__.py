"""What must hold of objects before guests boot, and what guests are given for them.

Not here: compiling sources (kernel_matrix.objects.build).
"""
