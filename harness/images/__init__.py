"""Images that guests boot: kernels of the manifest and the guest's root, fetched, verified, unpacked, cached."""

from harness.images.cache import cache_dir
from harness.images.kernels import KernelImage, kernel_image, update_lock
from harness.images.rootfs import RootImage, root_image

__all__ = ["KernelImage", "RootImage", "cache_dir", "kernel_image", "root_image", "update_lock"]
