"""Attention by cuDNN, whose kernels need a tenth of the time of TensorRT's and no memory for the scores.

The operation and its limits: https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html
"""

from __future__ import annotations

from typing import Any

from litevlm_ros.engines.text_blocks import qkv_width
from litevlm_ros.model_config import TextConfig, VisionConfig
from litevlm_ros.runtime.tensorrt.cudnn_library import Cudnn, CudnnGraph, CudnnKernel, Layout
from litevlm_ros.runtime.tensorrt.numbers import NUMBER_BYTES

_WHAT = "attention"
_ONE = Layout((1, 1, 1, 1), (1, 1, 1, 1))
"""A length: one number."""
_INT_BYTES = 4


def _attention(
    cudnn: Cudnn,
    inputs: tuple[Layout, Layout, Layout],
    output: Layout,
    computed: str,
    *,
    has_lengths: bool = False,
    causal: bool = False,
) -> CudnnKernel:
    """Builds softmax(Q Kᵀ / √D) V for queries, keys and values [batch, heads, rows, D] that lie like `inputs`.

    With `has_lengths` it reads the numbers of queries and of keys when it runs, and the rest is padding. `causal` lets
    the last query see all keys, and each one before it one key less.

    Raises CudnnRefusal if cuDNN has no kernel for that, and EngineError if there is no room for its memory.
    """

    def define(graph: CudnnGraph) -> None:
        queries, keys, values = (
            graph.input(name, layout, computed)
            for name, layout in zip(("queries", "keys", "values"), inputs, strict=True)
        )
        options: dict[str, Any] = {}
        if has_lengths:
            new, valid = (graph.input(name, _ONE, "int32") for name in ("new", "valid"))
            options = {"use_padding_mask": True, "seq_len_q": new, "seq_len_kv": valid}
        if causal:
            options["use_causal_mask_bottom_right"] = True
        scale = inputs[0].sizes[3] ** -0.5
        result, _ = graph.operations.sdpa(
            name=_WHAT, q=queries, k=keys, v=values, generate_stats=False, attn_scale=scale, **options
        )
        graph.output("output", result, output, computed)

    return cudnn.kernel(_WHAT, computed, define)


class CudnnVisionAttention:
    """Attention within each tile, read from the packed QKV as it is."""

    def __init__(self, cudnn: Cudnn, config: VisionConfig, computed: str, tiles: int) -> None:
        """Builds it. Raises CudnnRefusal, and EngineError if there is no room."""
        rows, width, heads = 1 + config.grid**2, config.hidden_size, config.num_heads
        size = width // heads
        self._width_bytes = NUMBER_BYTES * width
        sizes = (tiles, heads, rows, size)
        packed, alone = (Layout(sizes, (rows * pitch, size, pitch, 1)) for pitch in (3 * width, width))
        self._kernel = _attention(cudnn, (packed, packed, packed), alone, computed)

    def enqueue(self, qkv: int, output: int) -> None:
        """Enqueues it from [R, 3 * hidden size] at `qkv` to [R, hidden size] at `output`. Raises CudnnRefusal."""
        keys, values = qkv + self._width_bytes, qkv + 2 * self._width_bytes
        self._kernel.enqueue({"queries": qkv, "keys": keys, "values": values, "output": output})


class CudnnTextAttention:
    """Attention of up to `rows` new tokens to the whole cache, of whose rows the lengths in device memory count."""

    def __init__(self, cudnn: Cudnn, config: TextConfig, computed: str, rows: int, capacity: int) -> None:
        """Builds it. Raises CudnnRefusal, and EngineError if there is no room."""
        heads, groups, size = config.num_heads, config.num_kv_heads, config.head_dim
        queries, output = (
            Layout((1, heads, rows, size), (rows * pitch, size, pitch, 1))
            for pitch in (qkv_width(config), heads * size)
        )
        cached = Layout((1, groups, capacity, size), (capacity * groups * size, size, groups * size, 1))
        # A single token sees the whole cache. cuDNN documents wrong results for it with a causal mask.
        self._kernel = _attention(cudnn, (queries, cached, cached), output, computed, has_lengths=True, causal=rows > 1)

    def enqueue(self, qkv: int, keys: int, values: int, lengths: int, output: int) -> None:
        """Enqueues it; see TextAttention. Raises CudnnRefusal."""
        both = {"new": lengths, "valid": lengths + _INT_BYTES}
        self._kernel.enqueue({"queries": qkv, "keys": keys, "values": values, "output": output, **both})
