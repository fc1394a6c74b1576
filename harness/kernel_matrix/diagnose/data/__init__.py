"""Tables that the rules look into: helpers, sections, the verifier's complaints. Pure data.

Not here: the rules (kernel_matrix.diagnose).
"""
