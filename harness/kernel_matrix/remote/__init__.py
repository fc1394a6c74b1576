"""The machines of guests: this one, or others over ssh.

Not here: the guests' tests (kernel_matrix.session).
"""
