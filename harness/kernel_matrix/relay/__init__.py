"""One guest's life: boot, save, restore, hand over, carry bytes, end.

Not here: which guests there are (kernel_matrix.plan) and the outcomes of their tests (kernel_matrix.session).
"""
