"""The command ``mutants``: mutants of the programs, made, compiled, tried in warm guests, and held against the record.

Not here: the guest's side (kernel_matrix.guest.pytest.trials) and what both say to each other
(shared.outcomes.mutants).
"""
