"""Data and readers that host and guest share; they use the standard library and msgspec only.

Not here: anything that starts a process or knows QEMU.
"""
