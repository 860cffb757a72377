"""How fast this machine is at a moment, whatever the node does: other tenants of a server slow it down."""

from __future__ import annotations

import time

import numpy as np

_VALUES = np.random.default_rng(0).random((512, 512), np.float32)


def yardstick_ms() -> float:
    """CPU time in ms of work that is always the same, about ten: arithmetic, memory and Python."""
    began = time.thread_time()
    for _ in range(20):
        np.exp(_VALUES).sum()
    sum(range(200_000))
    return 1e3 * (time.thread_time() - began)
