"""Objects that others compiled: loaded as their own loaders do, attached to targets that are made here.

Not here: pytest's items for them (kernel_matrix.guest.pytest.items.objects), and the causes of refusals (`diagnosis`).
"""
