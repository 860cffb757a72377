"""All layers of the text decoder as the pieces of a program: kernels, blocks and attention in turn."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.engines.block_graph import UNIT
from litevlm_ros.engines.text_blocks import qkv_width
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.attention import TextAttention
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.text import TextKernels
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Slots
from litevlm_ros.runtime.tensorrt.numbers import FLOAT_BYTES, NUMBER_BYTES
from litevlm_ros.runtime.tensorrt.program import Piece
from litevlm_ros.runtime.tensorrt.text_blocks import TextBlocks
from litevlm_ros.runtime.tensorrt.text_buffers import TextBuffers, TextInputs
from litevlm_ros.runtime.tensorrt.weights import TextWeights


class TextLayers:
    """Makes programs of S new tokens and K wanted rows, which share one set of activations."""

    def __init__(
        self,
        config: TextConfig,
        blocks: TextBlocks,
        weights: TextWeights,
        attention: TextAttention,
        kernels: TextKernels,
        buffers: TextBuffers,
        device: CudaDevice,
        memory: DeviceMemory,
        *,
        visual_is_bf16: bool,
    ) -> None:
        """Allocates the activations. Raises EngineError if memory is short."""
        self._config = config
        self._blocks, self._weights, self._attention = blocks, weights, attention
        self._kernels, self._buffers = kernels, buffers
        self._visual_is_bf16 = visual_is_bf16
        width, mixed = config.hidden_size, config.num_heads * config.head_dim
        rows = max(buffers.most_new, MOST_LOGITS)
        self._at = Slots(memory, "text activations", {
            "residual": FLOAT_BYTES * rows * width,
            "sum": FLOAT_BYTES * rows * width,
            "change": FLOAT_BYTES * rows * width,
            "zeros": FLOAT_BYTES * rows * width,
            "qkv": NUMBER_BYTES * rows * qkv_width(config),
            "attention": NUMBER_BYTES * rows * mixed,
            "rotations": FLOAT_BYTES * rows * config.head_dim,
            "attention_rows": NUMBER_BYTES * MOST_LOGITS * mixed,
            "residual_rows": FLOAT_BYTES * MOST_LOGITS * width,
            UNIT: FLOAT_BYTES,
        })  # fmt: skip
        memory.write(self._at[UNIT], np.ones(1, np.float32))

    def pieces(self, new: int, logits: int, inputs: TextInputs) -> Iterator[Piece]:
        """Yields the parts of a program that reads `new` tokens from `inputs` and computes `logits` rows of logits.

        It appends to the cache, and writes logits, next tokens and flags to the buffers.
        """
        buffers, kernels, runs = self._buffers, self._kernels, iter(self._weights.runs)
        at = {name: self._at[name] for name in self._at.offsets}
        qkv, mlp, head = (self._blocks.block(*each) for each in (("qkv", new), ("mlp", new), ("head", logits)))
        last_mlp = self._blocks.block("mlp", logits)
        attention = self._attention.make(new)
        words = self._weights.embedding
        embed = partial(kernels.embed, inputs.ids, words.values, words.scales, buffers.visual, at["sum"], new)
        yield partial(embed, visual_is_bf16=self._visual_is_bf16)
        yield partial(kernels.rotations, inputs.positions, buffers.frequencies, at["rotations"], new)
        change = at["zeros"]  # which nobody writes
        for index in range(self._config.num_layers):
            keys, values = buffers.keys(index), buffers.values(index)
            rotated = at["qkv"], keys, values, at["rotations"], inputs.lengths, buffers.bad + 4 * index, new
            yield qkv.piece(next(runs), {**at, "change": change}, "sum", "change", "residual", "qkv")
            yield partial(kernels.rotate_and_append, *rotated)
            yield partial(attention.enqueue, at["qkv"], keys, values, inputs.lengths, at["attention"])
            if index < self._config.num_layers - 1:
                yield mlp.piece(next(runs), at, "attention", "residual", "sum", "change")
                change = at["change"]
        rows = at
        if new > 1:  # from here on, only the rows whose logits are asked for
            rows = {**at, "attention": at["attention_rows"], "residual": at["residual_rows"]}
            gathered = inputs.wanted, at["attention"], at["residual"], rows["attention"], rows["residual"], logits
            yield partial(kernels.gather_rows, *gathered)
        yield last_mlp.piece(next(runs), rows, "attention", "residual", "sum", "change")
        yield head.piece(next(runs), {**at, "logits": buffers.logits}, "sum", "change", "logits")
        flag = buffers.bad + 4 * self._config.num_layers
        yield partial(kernels.choose, buffers.logits, buffers.next_tokens, flag, logits, buffers.logits_stride)
