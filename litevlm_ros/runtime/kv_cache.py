"""The KV cache: its capacity and length, the shapes in which graphs see it, and the buffer itself in host memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError, EngineError
from litevlm_ros.model_config import ModelConfig, TextConfig

BUCKET = 64
"""The rows offered to a graph are a multiple of this, so that it sees few shapes."""

Rows = npt.NDArray[Any]
"""fp32 or fp16 [layers, 2, rows, G, D]: keys at index 0, values at index 1; a view of the buffer."""


def context_capacity(config: PipelineConfig, model: ModelConfig) -> int:
    """Returns the rows of the cache. Raises ConfigError if `config.max_context` is more than `model` was made for."""
    most = model.text.max_position_embeddings
    if config.max_context > most:
        raise ConfigError(
            f"max_context is {config.max_context}; allowed: up to this model's {most}. Use 0 for as many as it allows"
        )
    return config.max_context or most


def bucket(length: int, capacity: int) -> int:
    """Returns the rows to offer when `length` are valid.

    That is the next multiple of BUCKET, at least one bucket, and at most `capacity`.
    """
    return min(capacity, max(BUCKET, -(-length // BUCKET) * BUCKET))


class CacheLength:
    """The number of rows in use of a cache, which never exceeds its capacity."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._length = 0

    @property
    def length(self) -> int:
        """The number of rows in use."""
        return self._length

    @property
    def capacity(self) -> int:
        """The number of rows that there are."""
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
    """A cache in host memory: [layers, 2, capacity, G, D], so that the first rows of one layer are contiguous.

    Rows from `length` on hold zeros or what was there before `truncate`. They have to be finite: graphs multiply them
    by zero, and zero times NaN is NaN.
    """

    def __init__(self, text: TextConfig, capacity: int, dtype: npt.DTypeLike = np.float32) -> None:
        """Reserves address space for `capacity` rows. Raises EngineError if there is not enough."""
        super().__init__(capacity)
        try:
            # Zeroed pages cost no memory until they are written.
            self._rows = np.zeros((text.num_layers, 2, capacity, text.num_kv_heads, text.head_dim), dtype)
        except (MemoryError, ValueError, OverflowError) as error:
            raise EngineError(
                f"there is no memory for the keys and values of {capacity} tokens ({error}); give a smaller max_context"
            ) from error

    def past(self, rows: int) -> Rows:
        """Returns the first `rows` rows, of which `length` are valid."""
        return self._rows[:, :, :rows]

    def next(self, count: int) -> Rows:
        """Returns the `count` rows behind the valid ones, to be written. Raises EngineError if they do not fit."""
        self.require(count)
        return self._rows[:, :, self._length : self._length + count]
