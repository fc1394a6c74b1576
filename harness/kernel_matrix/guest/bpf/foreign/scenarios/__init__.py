"""What is done while an object is attached, and what its maps and events have then.

Not here: pytest's fixtures and items for it (kernel_matrix.guest.pytest.items).
"""
