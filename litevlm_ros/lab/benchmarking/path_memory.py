"""The memory that a loaded model takes on TensorRT, by the purposes that the runtime itself names.

It is computed from the model's shapes: what `runtime/tensorrt/` allocates for weights, cache, activations and scratch.
What libraries take for themselves cannot be computed, and is given as it was measured elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.engines.block_graph import FLOAT
from litevlm_ros.engines.block_parameters import BlockParameter, embedding, text_runs, vision_runs
from litevlm_ros.engines.shapes import Sizes
from litevlm_ros.engines.text_blocks import padded_vocabulary, qkv_width
from litevlm_ros.engines.vision_blocks import patch_width
from litevlm_ros.lab.benchmarking.roofline import WEIGHT_BYTES
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.precision import PACKED_PRECISIONS, WORD_TABLES, stored_in
from litevlm_ros.runtime.tensorrt.numbers import FLOAT_BYTES as _FLOAT
from litevlm_ros.runtime.tensorrt.numbers import NUMBER_BYTES as _HALF
from litevlm_ros.runtime.tensorrt.text_buffers import rows_of_cache
from litevlm_ros.runtime.tensorrt.weight_loading import parameter_bytes

NODE_BYTES = 190e6
"""Bytes of the node's process beside all this, as measured with the demo model (docs/benchmarks.md)."""


def model_memory(
    model: ModelConfig, vision: str, text: str, *, tiles: int, max_context: int, frames: int = 8
) -> dict[str, float]:
    """Returns the bytes by purpose of engines in the precisions `vision` and `text`.

    `tiles` is the number that one call encodes, `max_context` the rows of the cache, and `frames` the number of frames
    of one tile whose visual tokens are kept for further questions (`reuse_frames`).
    """
    config = model.text
    vision_weights = vision_runs(model, "fp16")
    text_weights = text_runs(config, "fp16")
    every_text = {each.name: each for run in (*text_weights, (embedding(config, "fp16"),)) for each in run}
    prompt = Sizes(tiles, max_context).max_prompt
    rows = rows_of_cache(max_context, prompt)
    return {
        "vision weights": sum(_stored(each, vision) for run in vision_weights for each in run),
        "text weights": sum(_stored(each, text) for each in every_text.values()),
        "unpacked weights of one block": _scratch(vision_weights, vision) + _scratch(text_weights, text),
        "KV cache": _HALF * 2 * config.num_layers * rows * config.num_kv_heads * config.head_dim,
        "activations": _vision_activations(model, tiles) + _text_activations(model, prompt),
        "frames, visual tokens and logits": _HALF
        * (
            config.hidden_size * (max_context + (frames + tiles) * model.vision.tokens_per_tile)
            + MOST_LOGITS * padded_vocabulary(config)
        )
        + tiles * 3 * model.vision.image_size**2,
    }


def _packing(parameter: BlockParameter, precision: str) -> str:
    """Returns the packed precision in which an engine of `precision` stores a parameter; '' for numbers."""
    if precision not in PACKED_PRECISIONS or len(parameter.shape) != 2 or parameter.tensor.type == FLOAT:
        return ""
    stored = stored_in(parameter.name, precision)
    return stored if stored in PACKED_PRECISIONS else ""


def _stored(parameter: BlockParameter, precision: str) -> float:
    """Returns the bytes of a parameter in device memory."""
    packing = _packing(parameter, precision)
    if packing:
        return WEIGHT_BYTES[packing] * prod(map(int, parameter.tensor.shape))
    return parameter_bytes(parameter)


def _scratch(runs: Iterable[Iterable[BlockParameter]], precision: str) -> int:
    """Returns the bytes into which the largest block of a part is unpacked; 0 if nothing is.

    Tables of words are not: blocks read them as they are stored.
    """
    return max(
        sum(parameter_bytes(each) for each in run if _packing(each, precision) and each.name not in WORD_TABLES)
        for run in runs
    )


def _vision_activations(model: ModelConfig, tiles: int) -> int:
    """Returns the bytes of what lies between blocks, and of the zeros that stand for the first change."""
    width, rows = model.vision.hidden_size, tiles * (1 + model.vision.grid**2)
    between = 2 * _FLOAT + _HALF + 3 * _HALF + _HALF + _HALF  # residual, sum; change; qkv; attention; zeros
    return rows * (between * width + _HALF * patch_width(model.vision))


def _text_activations(model: ModelConfig, prompt: int) -> int:
    """Returns the bytes of what lies between the text decoder's blocks, and within the largest of them."""
    config = model.text
    width, inner, mixed = config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim
    between = 4 * _FLOAT * width + _HALF * (qkv_width(config) + mixed) + _FLOAT * config.head_dim
    within = _FLOAT * width + _HALF * width + 3 * _HALF * inner
    return prompt * (between + within)
