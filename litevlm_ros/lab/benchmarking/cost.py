"""What a stage must at least move and compute, and how long that takes at given rates: the roofline's floor."""

from __future__ import annotations

from dataclasses import dataclass

from litevlm_ros.model_config import ModelConfig

WEIGHT_BYTES = {"fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5 + 2 / 128}
"""Bytes of one weight of a linear layer; int4 has an fp16 scale for each block of 128. The output projection, which is
the embedding table too, stays fp16, and so do keys, values and activations."""
_HALF = 2


@dataclass(frozen=True)
class Cost:
    """Of one stage: bytes read from memory, and floating-point operations of its matrix products."""

    bytes: float
    flops: float

    def floor_ms(self, bandwidth: float, rate: float) -> float:
        """Milliseconds at `bandwidth` bytes/s and `rate` FLOP/s, both at once: the slower one decides."""
        return 1e3 * max(self.bytes / bandwidth, self.flops / rate)


def vision_cost(model: ModelConfig, tiles: int, precision: str = "fp16") -> Cost:
    """All tiles in one call; weights are read once."""
    vision, text = model.vision, model.text
    width, rows = vision.hidden_size, 1 + vision.grid**2
    layers = vision.num_layers * (4 * width**2 + 2 * width * vision.intermediate_size)
    patches = 3 * vision.patch_size**2 * width
    projector = vision.projector_size * text.hidden_size + text.hidden_size**2
    attention = vision.num_layers * 4 * rows**2 * width
    return Cost(
        bytes=WEIGHT_BYTES[precision] * layers + _HALF * (patches + projector),
        flops=tiles * (2 * rows * (layers + patches) + attention + 2 * vision.tokens_per_tile * projector),
    )


def prefill_cost(model: ModelConfig, tokens: int, precision: str = "fp16") -> Cost:
    """A prompt with an empty cache and logits of its last token."""
    text = model.text
    layers, head = _text_weights(model)
    attention = text.num_layers * 2 * tokens**2 * text.num_heads * text.head_dim  # half of the scores are masked
    return Cost(
        bytes=WEIGHT_BYTES[precision] * layers + _HALF * head + tokens * _row_bytes(model),
        flops=2 * tokens * layers + attention + 2 * head,
    )


def decode_cost(model: ModelConfig, context: int, precision: str = "fp16") -> Cost:
    """One token behind `context` others."""
    text = model.text
    layers, head = _text_weights(model)
    attention = text.num_layers * 4 * context * text.num_heads * text.head_dim
    return Cost(
        bytes=WEIGHT_BYTES[precision] * layers + _HALF * head + context * _row_bytes(model),
        flops=2 * (layers + head) + attention,
    )


def _text_weights(model: ModelConfig) -> tuple[int, int]:
    """Weights of all layers, and of the output projection."""
    text = model.text
    query, key_value = text.num_heads * text.head_dim, 2 * text.num_kv_heads * text.head_dim
    layer = text.hidden_size * (2 * query + key_value + 3 * text.intermediate_size)
    return text.num_layers * layer, text.vocab_size * text.hidden_size


def _row_bytes(model: ModelConfig) -> int:
    """Keys and values of one token."""
    text = model.text
    return _HALF * text.num_layers * 2 * text.num_kv_heads * text.head_dim
