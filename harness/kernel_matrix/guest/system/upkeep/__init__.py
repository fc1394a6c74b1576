"""What the engine itself does in a guest's system: commands of a user, the kernel's log, a sign of life.

Not here: what tests import (kernel_matrix.guest.system).
"""
