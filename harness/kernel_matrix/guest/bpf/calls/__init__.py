"""Single calls by descriptors and bytes: what loads and attaches without an opened object.

Not here: libbpf's steps on an object (kernel_matrix.guest.bpf.steps).
"""
