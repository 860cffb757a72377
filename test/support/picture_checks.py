"""Checks that are the same for JPEG and PNG: which pictures are refused, and how long that takes."""

from __future__ import annotations

import contextlib
import time

import pytest

from litevlm_ros.errors import ImageFault, MalformedImageError
from litevlm_ros.images.compressed import check_compressed, decode_compressed

_SOON = 0.2
"""Seconds of this thread's own time. What is let through to a decoder by mistake takes longer, or another fault."""


def assert_refused_soon(kind: str, data: bytes, fault: ImageFault) -> None:
    """Asserts that the picture is refused for this reason, and before much work is done."""
    started = time.thread_time()
    with pytest.raises(MalformedImageError) as refused:
        decode_compressed(kind, data)
    assert refused.value.fault is fault, refused.value
    assert time.thread_time() - started < _SOON


def seconds_of_a_check(kind: str, data: bytes) -> float:
    """Returns the least seconds of several checks, in this thread's own time."""
    times = []
    for _ in range(5):
        started = time.thread_time()
        with contextlib.suppress(MalformedImageError):
            check_compressed(kind, data)
        times.append(time.thread_time() - started)
    return min(times)
