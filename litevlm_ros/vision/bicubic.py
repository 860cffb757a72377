"""The weights of Pillow's bicubic filter with antialiasing, in its fixed point, for kernels that resize as Pillow does.

Pillow resizes 8-bit images in two passes, one across and one down, and rounds to uint8 after each. A pass computes, for
each new pixel, `clip((HALF + sum of weight * pixel) >> BITS)` over the pixels that the filter covers
(`precompute_coeffs` and `normalize_coeffs_8bpc` in Pillow's src/libImaging/Resample.c).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

BITS = 22
"""Number of bits behind the point of a weight."""
HALF = 1 << (BITS - 1)
"""One half in the fixed point of the weights."""

_SUPPORT = 2.0
"""Half of the filter's width in pixels, where the image is not reduced."""
_SHARPNESS = -0.5
"""The parameter `a` of the bicubic filter (R. Keys, IEEE ASSP 29, 1981)."""


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of one pass: new pixel i is made of the pixels from first[i] on, as far as there are any."""

    first: npt.NDArray[np.int32]
    """int32 [new length]."""
    taps: npt.NDArray[np.int32]
    """int32 [number of pixels that a new one is made of, new length]; zero where there are fewer pixels."""


@lru_cache(maxsize=64)
def weights(length: int, new_length: int) -> Weights:
    """Returns the weights that resize rows or columns from `length` to `new_length` pixels."""
    scale = length / new_length
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    center = (np.arange(new_length) + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    count = np.minimum((center + support + 0.5).astype(np.int64), length) - first
    taps = np.zeros((min(math.ceil(support) * 2 + 1, length), new_length))
    # One pixel after the other, as Pillow adds: another order would round the sum to another number.
    total = np.zeros(new_length)
    for index, row in enumerate(taps):
        row[:] = np.where(index < count, _bicubic((first + index - center + 0.5) * (1.0 / stretch)), 0.0)
        total += row
    taps /= np.where(total == 0.0, 1.0, total)
    fixed = taps * (1 << BITS)
    return Weights(first.astype(np.int32), np.trunc(fixed + np.copysign(0.5, fixed)).astype(np.int32))


def _bicubic(distance: npt.NDArray[Any]) -> npt.NDArray[Any]:
    x, a = np.abs(distance), _SHARPNESS
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
