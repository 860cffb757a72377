"""Attention in numpy with float64, and the sample numbers by which kernels are checked against it.

Each sample number follows from its place, so the host computes any part of an array that only the device holds whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from litevlm_ros.runtime.tensorrt.numbers import Words, from_words, to_words

Floats = npt.NDArray[np.floating[Any]]

TOLERANCES = {"fp16": 5e-3, "bf16": 3e-2}
"""Type in which attention is computed → the largest relative error of one head of one row.

cuDNN's is 3e-4 in fp16. One key too many or too few among n changes a row by about 1 / √n.
"""

_PERIOD = 100_003
"""The sample numbers repeat after so many: a prime, so that no two rows of an array are equal."""


class SampleNumbers:
    """Normally distributed fp16 or bf16 numbers, an endless row of them."""

    def __init__(self, computed: str) -> None:
        """`computed` is 'fp16' or 'bf16'."""
        numbers = np.random.default_rng(0).standard_normal(_PERIOD, np.float32)
        self.period: Words = to_words(numbers, computed)
        """The numbers until they repeat."""
        self._numbers = from_words(self.period, computed)

    def matrix(self, start: int, rows: Sequence[int], columns: Sequence[int], width: int) -> npt.NDArray[np.float64]:
        """Returns `rows` and `columns` of an array of `width` columns that holds the numbers from `start` on."""
        places = start + np.asarray(rows, np.int64)[:, None] * width + np.asarray(columns, np.int64)
        return self._numbers[places % _PERIOD].astype(np.float64)


@dataclass(frozen=True)
class Lengths:
    """The lengths of one call of text attention: `new` tokens, which are the last of `valid` rows of the cache."""

    new: int
    valid: int

    def keys_of(self, row: int) -> int:
        """Returns how many rows of the cache the new token `row` sees: those up to its own."""
        return self.valid - self.new + row + 1


def lengths_to_check(rows: int, capacity: int) -> tuple[Lengths, ...]:
    """Returns the lengths with which `rows` new tokens over a cache of `capacity` rows are checked.

    They are a single first token, a whole prompt, fewer new tokens than rows behind a past, and a full cache.
    """
    most = min(rows, capacity)
    fewer = max(1, most - 3)
    cases = (Lengths(1, 1), Lengths(most, most), Lengths(fewer, min(fewer + 37, capacity)), Lengths(most, capacity))
    return tuple(dict.fromkeys(cases))


def edges(count: int, *others: int) -> list[int]:
    """Returns the first, the second, the middle and the last of `count` places, and `others` if they exist."""
    return sorted({place for place in (0, 1, *others, count // 2, count - 1) if 0 <= place < count})


def attend(queries: Floats, keys: Floats, values: Floats) -> npt.NDArray[np.float64]:
    """Returns softmax(Q Kᵀ / √D) V, where queries [rows, D] see all keys [n, D] and values [n, D]."""
    scores = np.asarray(queries, np.float64) @ np.asarray(keys, np.float64).T / np.sqrt(queries.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)) @ np.asarray(values, np.float64)


def relative_error(found: Floats, expected: Floats) -> float:
    """Returns |found - expected| / |expected| over the last axis, of the worst row; infinite if any is not finite."""
    if not np.isfinite(found).all():
        return float("inf")
    return float((np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max())
