"""The fixed-size key/value buffer: its length, the shapes it is offered in, and the buffer itself in host memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import TextConfig

BUCKET = 64
"""The rows offered to a graph are a multiple of this, so that it sees few shapes."""

Rows = npt.NDArray[Any]
"""fp32 or fp16 [layers, 2, rows, G, D]: keys at index 0, values at index 1; a view of the buffer."""


def bucket(length: int, capacity: int) -> int:
    """Rows to offer when `length` are valid: the next multiple of BUCKET, at least one bucket, at most `capacity`."""
    return min(capacity, max(BUCKET, -(-length // BUCKET) * BUCKET))


class CacheLength:
    """How many of a cache's rows are in use, and that no more are ever asked of it than there are."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._length = 0

    @property
    def length(self) -> int:
        """Rows in use."""
        return self._length

    @property
    def capacity(self) -> int:
        """Rows there are."""
        return self._capacity

    def truncate(self, length: int) -> None:
        """Forgets all rows from `length` on. Raises EngineError if there are fewer."""
        if not 0 <= length <= self._length:
            raise EngineError(f"the cache has {self._length} rows; it cannot be cut to {length}")
        self._length = length

    def require(self, count: int) -> None:
        """Raises EngineError if there is no room for `count` more rows."""
        if self._length + count > self._capacity:
            raise EngineError(
                f"{count} more tokens do not fit behind the {self._length} in the cache of {self._capacity}; "
                "increase max_context"
            )

    def extend(self, count: int) -> None:
        """Makes the `count` rows behind the valid ones valid. Raises EngineError if they do not fit."""
        self.require(count)
        self._length += count


class HostKVCache(CacheLength):
    """One row per token: [layers, 2, capacity, G, D], so that the first rows of one layer are contiguous.

    Rows from `length` on hold zeros or what was there before `truncate`: finite numbers in any case.
    """

    def __init__(self, text: TextConfig, capacity: int, dtype: npt.DTypeLike = np.float32) -> None:
        """Raises EngineError where there is no address space for so many rows."""
        super().__init__(capacity)
        try:
            # Zeroed pages cost no memory until they are written.
            self._rows = np.zeros((text.num_layers, 2, capacity, text.num_kv_heads, text.head_dim), dtype)
        except (MemoryError, ValueError, OverflowError) as error:
            raise EngineError(
                f"there is no memory for the keys and values of {capacity} tokens ({error}); give a smaller max_context"
            ) from error

    def past(self, rows: int) -> Rows:
        """The first `rows` rows, of which `length` are valid."""
        return self._rows[:, :, :rows]

    def next(self, count: int) -> Rows:
        """The `count` rows behind the valid ones, to be written. Raises EngineError if they do not fit."""
        self.require(count)
        return self._rows[:, :, self._length : self._length + count]
