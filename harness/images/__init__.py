"""Images that guests boot: kernels of the manifest and the guest's root, fetched, verified, unpacked, cached."""

from harness.images.cache import cache_dir, prune
from harness.images.kernels import KernelImage, cached_kernel, kernel_image, kernel_key, update_lock
from harness.images.rootfs import RootImage, cached_root, root_image, root_key

__all__ = [
    "KernelImage",
    "RootImage",
    "cache_dir",
    "cached_kernel",
    "cached_root",
    "kernel_image",
    "kernel_key",
    "prune",
    "root_image",
    "root_key",
    "update_lock",
]
