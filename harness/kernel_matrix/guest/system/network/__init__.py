"""A test's network: namespaces, veth pairs, frames.

Not here: capturing what a failed test sent (kernel_matrix.guest.pytest.capture).
"""
