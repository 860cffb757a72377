"""Attention between two blocks: by cuDNN where it is right on this GPU, else by TensorRT.

Kernels are made for fixed numbers of rows. Each is checked against numpy when it is made, and only then used.
"""

from __future__ import annotations

from typing import Protocol

from litevlm_ros.model_config import TextConfig, VisionConfig
from litevlm_ros.runtime.tensorrt.attention_check import check_text, check_vision
from litevlm_ros.runtime.tensorrt.cudnn_attention import CudnnTextAttention, CudnnVisionAttention
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.engine_attention import EngineTextAttention, EngineVisionAttention, Indices
from litevlm_ros.runtime.tensorrt.libraries import Libraries
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.plans import BlockPlans


class VisionKernel(Protocol):
    """Attention within each of a fixed number of tiles."""

    def enqueue(self, qkv: int, output: int) -> None:
        """Enqueues it from packed numbers [R, 3 * hidden size] at `qkv` to [R, hidden size] at `output`."""


class TextKernel(Protocol):
    """Attention of a fixed number of rows, new tokens and padding behind them, to the cache."""

    def enqueue(self, qkv: int, keys: int, values: int, lengths: int, output: int) -> None:
        """Enqueues it from the queries in [rows, qkv width] at `qkv` to [rows, heads * D] at `output`.

        `keys` and `values` are one layer's part of the cache [capacity, G, D], which holds those of the new tokens
        already. `lengths` int32 [2] are the number of new tokens, and of valid rows of the cache with them. What
        padding rows become is finite as long as the numbers that are read are, those behind the valid rows included.
        """


class VisionAttention:
    """Makes the attention of the vision encoder. The device must be current in every call."""

    def __init__(
        self, device: CudaDevice, memory: DeviceMemory, plans: BlockPlans, config: VisionConfig, computed: str
    ) -> None:
        """`computed` is 'fp16' or 'bf16'; `plans` has the block 'attention', for where cuDNN is missing."""
        self._device, self._memory, self._plans = device, memory, plans
        self._config, self._computed = config, computed
        self._made: dict[int, VisionKernel] = {}
        self._libraries = Libraries.borrow(device, memory)

    def make(self, tiles: int) -> VisionKernel:
        """Makes and checks the attention within each of `tiles`; further calls return the same.

        Raises EngineError if neither cuDNN nor TensorRT computes it right, or if there is no room.
        """
        config, computed = self._config, self._computed

        def by_cudnn(cudnn: Cudnn) -> VisionKernel:
            return CudnnVisionAttention(cudnn, config, computed, tiles)

        def by_engine() -> VisionKernel:
            return EngineVisionAttention(self._plans, config, tiles)

        def check(kernel: VisionKernel) -> str:
            return check_vision(kernel.enqueue, self._device, self._memory, config, computed, tiles)

        if tiles not in self._made:
            what = f"the vision encoder's attention of {tiles} tiles"
            self._made[tiles] = self._libraries.make(what, by_cudnn, by_engine, check)
        return self._made[tiles]

    def close(self) -> None:
        """Gives the libraries back. No kernel may be running."""
        self._libraries.give_back()


class TextAttention:
    """Makes the attention of the text decoder to its cache. The device must be current in every call."""

    def __init__(
        self,
        device: CudaDevice,
        memory: DeviceMemory,
        plans: BlockPlans,
        config: TextConfig,
        computed: str,
        capacity: int,
    ) -> None:
        """`capacity` is the number of rows of the cache; see VisionAttention for the others."""
        self._device, self._memory, self._plans = device, memory, plans
        self._config, self._computed, self._capacity = config, computed, capacity
        self._indices: Indices | None = None
        self._made: dict[int, TextKernel] = {}
        self._libraries = Libraries.borrow(device, memory)

    def make(self, rows: int) -> TextKernel:
        """Makes and checks the attention of up to `rows` new tokens; further calls return the same.

        Raises EngineError if neither cuDNN nor TensorRT computes it right, or if there is no room.
        """
        config, computed, capacity = self._config, self._computed, self._capacity

        def by_cudnn(cudnn: Cudnn) -> TextKernel:
            return CudnnTextAttention(cudnn, config, computed, rows, capacity)

        def by_engine() -> TextKernel:
            return EngineTextAttention(self._plans, config, rows, capacity, self._enough_indices(max(rows, capacity)))

        def check(kernel: TextKernel) -> str:
            return check_text(kernel.enqueue, self._device, self._memory, config, computed, rows, capacity)

        if rows not in self._made:
            what = f"the text decoder's attention of {rows} tokens"
            self._made[rows] = self._libraries.make(what, by_cudnn, by_engine, check)
        return self._made[rows]

    def close(self) -> None:
        """Gives the libraries back. No kernel may be running."""
        self._libraries.give_back()

    def _enough_indices(self, count: int) -> Indices:
        if self._indices is None or self._indices.count < count:
            self._indices = Indices(self._memory, count)
        return self._indices
