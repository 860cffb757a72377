"""Settings of threads and memory for the node's process, so that images and inference do not delay its callbacks."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

SWITCH_SECONDS = 0.001
"""Seconds after which a thread that runs Python lets another one run. The default of 5 ms is as long as a whole camera
callback."""

LARGEST_KEPT = 32 << 20
"""Bytes. Freed blocks up to this size are kept for reuse; glibc allows no larger value."""

KEPT = 256 << 20
"""Bytes of freed memory at the end of an arena that are kept for reuse."""

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def tune_process() -> None:
    """Makes threads take turns more often, OpenCV use one thread, and the allocator keep freed memory of images.

    By default glibc returns an image's memory to the kernel when it is freed. The pages of the next image are then
    mapped and zeroed one by one, which takes several times as long as copying the image. It also gives every new
    thread, such as that of each loaded model, an arena whose unused part no other thread can use. Without glibc, the
    allocator stays as it is.

    OpenCV's worker threads would not help: converting an image is limited by memory, and the workers would compete for
    the cores that inference and callbacks use.
    """
    import cv2  # imported here because the process has to be able to end before its libraries are imported

    sys.setswitchinterval(SWITCH_SECONDS)
    cv2.setNumThreads(1)
    mallopt = _libc_function("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_ARENA_MAX, 1)


def release_memory() -> None:
    """Frees objects that refer to each other in a circle, and returns freed memory to the kernel.

    For when it will not be needed soon. Python itself may look for such circles much later.
    """
    gc.collect()
    trim = _libc_function("malloc_trim")
    if trim is not None:
        trim(0)


def _libc_function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
