"""Mutants until they are tried: made or read, compiled, recognised as each other.

Not here: what becomes of them (kernel_matrix.commands.mutation.outcomes).
"""
