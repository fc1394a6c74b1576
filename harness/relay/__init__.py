"""One guest's life: boot, save, restore, hand over, carry bytes, end.

Not here: which guests there are (harness.plan) and what their tests find (harness.session).
"""
