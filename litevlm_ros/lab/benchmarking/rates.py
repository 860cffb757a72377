"""How fast this GPU copies and multiplies, measured by PyTorch: what floors are computed from."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

_COPY_BYTES = 1 << 30
_MATRIX = 8192
_RUNS = 10


def copy_bandwidth(device: str = "cuda", size: int = _COPY_BYTES) -> float:
    """Bytes/s read and written by a copy within device memory: the median of ten."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _median_seconds(lambda: target.copy_(source), device)


def matrix_rate(device: str = "cuda", size: int = _MATRIX) -> float:
    """FLOP/s of a product of two random fp16 matrices: the median of ten. (Zeros would be faster than real data.)"""
    first, second = (torch.randn(size, size, device=device).half() for _ in range(2))
    return 2 * size**3 / _median_seconds(lambda: first @ second, device)


def _median_seconds(work: Callable[[], object], device: str) -> float:
    if not device.startswith("cuda"):
        raise ValueError(f"rates are measured on a GPU, not on {device}")
    times = []
    for _ in range(_RUNS + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[3:])
