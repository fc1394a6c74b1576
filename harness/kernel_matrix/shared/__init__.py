"""What both halves speak: pure data and readers, the standard library and msgspec only.

Not here: anything that starts a process or knows QEMU.
"""
