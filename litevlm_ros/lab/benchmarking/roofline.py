"""The roofline: the bytes and FLOPs that a stage needs at least, and the rates of this GPU, measured by PyTorch.

`path_costs.py` counts what this package's own paths read, write and compute, which is more.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from litevlm_ros.model_config import ModelConfig
from litevlm_ros.precision import PACKED_PRECISIONS, WORD_PRECISION

WEIGHT_BYTES = {"fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 2 / 128}
"""Bytes of one weight of a linear layer. INT4 has an fp16 scale for each block of 128; the scales of fp8 and int8, one
for each output, are left out. Keys, values and activations are fp16 in every precision, and so is the patch
embedding."""
_HALF = 2


def word_bytes(precision: str) -> float:
    """Returns the bytes of one weight of the tables of words, the embedding and the head, in engines of `precision`."""
    return WEIGHT_BYTES[WORD_PRECISION if precision in PACKED_PRECISIONS else precision]


# --- costs


@dataclass(frozen=True)
class Cost:
    """The cost of one stage: bytes read from memory, and floating-point operations of its matrix products."""

    bytes: float
    flops: float

    def floor_ms(self, bandwidth: float, rate: float) -> float:
        """Returns the ms at `bandwidth` bytes/s and `rate` FLOP/s, both at once: the slower one decides."""
        return 1e3 * max(self.bytes / bandwidth, self.flops / rate)


def vision_cost(model: ModelConfig, tiles: int, precision: str = "fp16") -> Cost:
    """Returns the cost of encoding all tiles in one call, in which weights are read once."""
    vision, text = model.vision, model.text
    width, rows = vision.hidden_size, 1 + vision.grid**2
    layers = vision.num_layers * (4 * width**2 + 2 * width * vision.intermediate_size)
    patches = 3 * vision.patch_size**2 * width
    projector = vision.projector_size * text.hidden_size + text.hidden_size**2
    attention = vision.num_layers * 4 * rows**2 * width
    return Cost(
        bytes=WEIGHT_BYTES[precision] * (layers + projector) + _HALF * patches,
        flops=tiles * (2 * rows * (layers + patches) + attention + 2 * vision.tokens_per_tile * projector),
    )


def prefill_cost(model: ModelConfig, tokens: int, precision: str = "fp16") -> Cost:
    """Returns the cost of reading a prompt into an empty cache, with logits of its last token."""
    text = model.text
    layers, head = _text_weights(model)
    attention = text.num_layers * 2 * tokens**2 * text.num_heads * text.head_dim  # half of the scores are masked
    return Cost(
        bytes=WEIGHT_BYTES[precision] * layers + word_bytes(precision) * head + tokens * _row_bytes(model),
        flops=2 * tokens * layers + attention + 2 * head,
    )


def decode_cost(model: ModelConfig, context: int, precision: str = "fp16") -> Cost:
    """Returns the cost of one token behind `context` others."""
    text = model.text
    layers, head = _text_weights(model)
    attention = text.num_layers * 4 * context * text.num_heads * text.head_dim
    return Cost(
        bytes=WEIGHT_BYTES[precision] * layers + word_bytes(precision) * head + context * _row_bytes(model),
        flops=2 * (layers + head) + attention,
    )


def _text_weights(model: ModelConfig) -> tuple[int, int]:
    """Counts the weights of all layers, and of the output projection."""
    text = model.text
    query, key_value = text.num_heads * text.head_dim, 2 * text.num_kv_heads * text.head_dim
    layer = text.hidden_size * (2 * query + key_value + 3 * text.intermediate_size)
    return text.num_layers * layer, text.vocab_size * text.hidden_size


def _row_bytes(model: ModelConfig) -> int:
    """Returns the bytes of one token's keys and values."""
    text = model.text
    return _HALF * text.num_layers * 2 * text.num_kv_heads * text.head_dim


# --- rates of this GPU


_COPY_BYTES = 1 << 30
_MATRIX_SIZE = 8192
_WARM_UP, _RUNS = 3, 10


def copy_bandwidth() -> float:
    """Measures the bytes/s that a copy within GPU memory reads and writes: the median of ten. Needs PyTorch."""
    import torch

    source = torch.zeros(_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * _COPY_BYTES / _median_seconds(lambda: target.copy_(source))


def matrix_rate() -> float:
    """Measures the FLOP/s of a product of two random fp16 matrices: the median of ten. Needs PyTorch.

    (Zeros would be faster than real data.)
    """
    import torch

    first, second = (torch.randn(_MATRIX_SIZE, _MATRIX_SIZE, device="cuda").half() for _ in range(2))
    return 2 * _MATRIX_SIZE**3 / _median_seconds(lambda: first @ second)


def _median_seconds(work: Callable[[], object]) -> float:
    import torch

    times = []
    for _ in range(_WARM_UP + _RUNS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[_WARM_UP:])
