"""How the node's process treats memory and threads, so that images and inference do not hold up its callbacks."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

SWITCH_SECONDS = 0.001
"""How long a thread that runs Python keeps another one waiting. Python's own 5 ms are a camera's whole callback."""

LARGEST_KEPT = 32 << 20
"""Bytes; glibc allows no more. Blocks up to this size are kept when they are freed."""

KEPT = 256 << 20
"""Bytes of freed memory at an arena's end that are kept."""

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def tune_process() -> None:
    """Lets threads take turns more often and images be decoded by one thread, and lets the allocator keep the memory of
    images for the next ones.

    By default glibc gives an image's memory back to the kernel when it is freed, and the pages of the next image are
    then mapped and zeroed one by one, which takes several times as long as copying the image. And it gives every new
    thread, as each loaded model has, an arena whose rest nobody else uses. Without glibc only threads change.

    Converting an image waits for memory, not for cores, and OpenCV's workers would wait for those that inference and
    callbacks use.
    """
    import cv2  # here, as the node's process has to be able to end before its libraries are imported

    sys.setswitchinterval(SWITCH_SECONDS)
    cv2.setNumThreads(1)
    mallopt = _libc_function("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_ARENA_MAX, 1)


def release_memory() -> None:
    """Gives freed memory back to the kernel, for when it will not be needed soon."""
    trim = _libc_function("malloc_trim")
    if trim is not None:
        trim(0)


def _libc_function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
