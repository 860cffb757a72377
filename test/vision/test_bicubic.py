from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from litevlm_ros.vision.bicubic import BITS, HALF, Weights, weights


def resized(column: np.ndarray, part: Weights) -> np.ndarray:
    """One pass over uint8 [length, ...]."""
    sums = np.full((part.first.size, *column.shape[1:]), HALF, np.int64)
    for place, (first, taps) in enumerate(zip(part.first, part.taps.T, strict=True)):
        covered = column[first : first + taps.size].astype(np.int64)
        sums[place] += np.tensordot(taps[: len(covered)], covered, 1)
    return np.clip(sums >> BITS, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("length", [1, 2, 3, 9, 10, 31, 97, 448, 720, 1279])
@pytest.mark.parametrize("new_length", [1, 2, 28, 56, 448, 451])
def test_they_are_pillows(length: int, new_length: int) -> None:
    column = np.random.default_rng(length).integers(0, 256, (length, 4), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(column).resize((4, new_length), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resized(column, weights(length, new_length)), expected)


def test_a_pass_that_keeps_the_length_changes_nothing() -> None:
    column = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(resized(column, weights(256, 256)), column)
