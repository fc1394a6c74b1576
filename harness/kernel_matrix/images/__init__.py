"""Images that guests boot: kernels and the guest's root are fetched, verified, unpacked and cached."""

from kernel_matrix.images.cache import cache_dir, compiled_dir, content_digest, digest, prune, used
from kernel_matrix.images.image import KernelImage
from kernel_matrix.images.kernels import (
    cached_kernel,
    kernel_headers,
    kernel_image,
    kernel_key,
    kernel_modules,
    kernel_version,
    load,
    not_locked,
    unlocked,
)
from kernel_matrix.images.modules import Modules, needed_folder
from kernel_matrix.images.packages.updating import update_lock
from kernel_matrix.images.rootfs import RootImage, cached_root, root_image, root_key

__all__ = [
    "KernelImage",
    "Modules",
    "RootImage",
    "cache_dir",
    "cached_kernel",
    "cached_root",
    "compiled_dir",
    "content_digest",
    "digest",
    "kernel_headers",
    "kernel_image",
    "kernel_key",
    "kernel_modules",
    "kernel_version",
    "load",
    "needed_folder",
    "not_locked",
    "prune",
    "root_image",
    "root_key",
    "unlocked",
    "update_lock",
    "used",
]
