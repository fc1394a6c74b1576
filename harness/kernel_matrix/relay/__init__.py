"""One guest's life: boot, save, restore, hand over, carry bytes, end.

Not here: which guests there are (kernel_matrix.plan) and what their tests find (kernel_matrix.session).
"""
