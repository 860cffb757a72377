"""Attention by TensorRT, where cuDNN does not compute it: the block 'attention', in parts that need little memory."""

from __future__ import annotations

import numpy as np

from litevlm_ros.engines.attention_blocks import ATTENTION
from litevlm_ros.engines.text_blocks import qkv_width
from litevlm_ros.model_config import TextConfig, VisionConfig
from litevlm_ros.runtime.tensorrt.memory import ALIGNMENT, DeviceMemory
from litevlm_ros.runtime.tensorrt.numbers import NUMBER_BYTES
from litevlm_ros.runtime.tensorrt.plans import BlockPlans

MOST_ROWS = 256
"""The most new tokens whose scores are in memory at a time: 59 MB in fp32 for 14 heads and a cache of 4096 rows."""

_INT_BYTES = 4


class EngineVisionAttention:
    """Attention within each tile, one tile after the other."""

    def __init__(self, plans: BlockPlans, config: VisionConfig, tiles: int) -> None:
        """Loads or builds its plan. Raises EngineError."""
        rows = 1 + config.grid**2
        input_bytes, output_bytes = (
            NUMBER_BYTES * rows * width for width in (3 * config.hidden_size, config.hidden_size)
        )
        # TensorRT wants aligned addresses, which the tiles of every known model have; others run at once.
        together = 1 if input_bytes % ALIGNMENT == 0 == output_bytes % ALIGNMENT else tiles
        self._offsets = [(tile * input_bytes, tile * output_bytes) for tile in range(0, tiles, together)]
        self._block = plans.block(ATTENTION, together * rows)

    def enqueue(self, qkv: int, output: int) -> None:
        """Enqueues it from [R, 3 * hidden size] at `qkv` to [R, hidden size] at `output`. Raises EngineError."""
        for read, written in self._offsets:
            self._block.enqueue({"qkv": qkv + read, "output": output + written})


class Indices:
    """The numbers 0, 1, 2 ... as int32 in device memory, by which the block tells rows and columns apart."""

    def __init__(self, memory: DeviceMemory, count: int) -> None:
        """Uploads the first `count` of them. Raises EngineError if there is no room."""
        numbers = np.arange(count, dtype=np.int32)
        self.count = count
        self.address = memory.allocate("attention", numbers.nbytes)
        memory.write(self.address, numbers)


class EngineTextAttention:
    """Attention of up to `rows` new tokens to the whole cache, MOST_ROWS at a time."""

    def __init__(self, plans: BlockPlans, config: TextConfig, rows: int, capacity: int, indices: Indices) -> None:
        """Loads or builds its plans. `indices` holds at least `rows` and `capacity` numbers. Raises EngineError."""
        self._input_bytes = NUMBER_BYTES * qkv_width(config)
        self._output_bytes = NUMBER_BYTES * config.num_heads * config.head_dim
        self._indices = indices.address
        starts = range(0, rows, MOST_ROWS)
        self._parts = [(start, plans.block(ATTENTION, min(MOST_ROWS, rows - start), capacity)) for start in starts]

    def enqueue(self, qkv: int, keys: int, values: int, lengths: int, output: int) -> None:
        """Enqueues it; see TextAttention. Raises EngineError."""
        shared = {"keys": keys, "values": values, "lengths": lengths, "column_indices": self._indices}
        for start, block in self._parts:
            own = {
                "qkv": qkv + start * self._input_bytes,
                "row_indices": self._indices + start * _INT_BYTES,
                "output": output + start * self._output_bytes,
            }
            block.enqueue({**shared, **own})
