"""The bytes and FLOPs of this package's own paths on TensorRT, kernel by kernel.

A path is the list of its kernels' costs. Kernels run one after the other, so a path takes at least the sum of their
floors: one that waits for memory is not hidden behind one that computes. Every kernel is taken to read its inputs from
memory and to write its results there, once; what an L2 cache saves is left out.

- Steps of 1 to 16 tokens read weights as they are stored, and multiply them in fp16.
- Before prefill and vision, a kernel unpacks each block's weights: it reads the stored bytes and writes fp16, which the
  products then read. fp16 and bf16 weights are read as they are.
- Attention reads queries, keys and values and writes its result, but no scores.
- The head and the embedding are read as they are stored, too: in int8 where the layers are packed. The patch embedding
  is fp16 in every precision.
"""

from __future__ import annotations

from collections.abc import Iterable

from litevlm_ros.engines.text_blocks import padded_vocabulary, qkv_width
from litevlm_ros.engines.vision_blocks import patch_width
from litevlm_ros.lab.benchmarking.boards import Rates
from litevlm_ros.lab.benchmarking.roofline import WEIGHT_BYTES, Cost, word_bytes
from litevlm_ros.model_config import ModelConfig, TextConfig
from litevlm_ros.precision import PACKED_PRECISIONS
from litevlm_ros.runtime.tensorrt.numbers import FLOAT_BYTES as _FLOAT
from litevlm_ros.runtime.tensorrt.numbers import NUMBER_BYTES as _HALF

Path = tuple[Cost, ...]
"""The costs of kernels that run one after the other."""


def path_ms(path: Iterable[Cost], rates: Rates) -> float:
    """Returns the ms of a path in which each kernel takes as long as its memory or its arithmetic does."""
    return sum(cost.floor_ms(rates.bandwidth, rates.flops) for cost in path)


def vision_path(model: ModelConfig, tiles: int, precision: str = "fp16") -> Path:
    """Returns the path from `tiles` tiles to their visual tokens, by the blocks of `engines/vision_blocks.py`."""
    config, text_width = model.vision, model.text.hidden_size
    width, inner, tile_rows = config.hidden_size, config.intermediate_size, 1 + config.grid**2
    rows, tokens = tiles * tile_rows, tiles * config.tokens_per_tile
    layer = (
        *_unpacking(3 * width**2, precision),
        _moving(rows * width * (_FLOAT + _HALF + _FLOAT + _HALF)),  # sum, change → residual, normalised
        _product(rows, width, 3 * width),
        Cost(_HALF * rows * 4 * width, 4 * tiles * tile_rows**2 * width),
        *_unpacking(width**2 + 2 * width * inner, precision),
        _product(rows, width, width, result=_FLOAT, added=_FLOAT * rows * width),
        _moving(rows * width * (_FLOAT + _HALF)),
        _product(rows, width, inner),
        _product(rows, inner, width),
    )
    return (
        _moving(tiles * 3 * config.image_size**2 + _HALF * rows * patch_width(config)),
        _product(rows, patch_width(config), width, result=_FLOAT, added=_FLOAT * tile_rows * width),
        *config.num_layers * layer,
        *_unpacking(config.projector_size * text_width + text_width**2, precision),
        _moving(tokens * config.projector_size * (_FLOAT + _HALF + _HALF)),
        _product(tokens, config.projector_size, text_width),
        _product(tokens, text_width, text_width),
    )


def prefill_path(model: ModelConfig, new: int, past: int = 0, precision: str = "fp16") -> Path:
    """Returns the path of `new` tokens behind `past` cache rows, with logits of the last, by `text_products.py`.

    All of it is read in one call.
    """
    text, words = model.text, word_bytes(precision)

    def attention_half() -> Path:
        return (
            *_unpacking(text.hidden_size * qkv_width(text), precision),
            _add_and_normalise(new, text),
            _product(new, text.hidden_size, qkv_width(text)),
            _moving(2 * _HALF * new * qkv_width(text)),  # the bias
            _moving(new * (2 * _HALF * qkv_width(text) + _FLOAT * text.head_dim)),  # rotary positions, and the cache
            _attention(text, new, past),
        )

    def mlp_half(rows: int) -> Path:
        mixed, inner, width = text.num_heads * text.head_dim, text.intermediate_size, text.hidden_size
        return (
            *_unpacking(width * mixed + 3 * width * inner, precision),
            _product(rows, mixed, width, result=_FLOAT),
            _add_and_normalise(rows, text),
            _product(rows, width, 2 * inner),
            _moving(3 * _HALF * rows * inner),
            _product(rows, inner, width, result=_FLOAT),
        )

    return (
        _moving(new * text.hidden_size * (words + _FLOAT)),
        *(text.num_layers - 1) * (*attention_half(), *mlp_half(new)),
        *(*attention_half(), *mlp_half(1)),  # the last layer goes on with the last token alone
        _add_and_normalise(1, text),
        _product(1, text.hidden_size, padded_vocabulary(text), stored=words),
    )


def step_path(model: ModelConfig, new: int, past: int, precision: str = "fp16") -> Path:
    """Returns the path of 1 to `config.MOST_LOGITS` tokens behind `past` cache rows, with logits of each of them."""
    text = model.text
    width, inner, mixed = text.hidden_size, text.intermediate_size, text.num_heads * text.head_dim
    stored, residual = WEIGHT_BYTES[precision], _FLOAT * new * width
    layer = (
        _product(new, width, qkv_width(text), stored=stored, added=residual),
        _attention(text, new, past),
        _product(new, mixed, width, stored=stored, result=_FLOAT, added=residual),
        Cost(
            stored * 2 * width * inner + residual + _HALF * new * inner,
            4 * new * width * inner,
        ),
        _product(new, inner, width, stored=stored, result=_FLOAT, added=residual),
    )
    head = _product(new, width, padded_vocabulary(text), stored=word_bytes(precision), added=residual)
    return (*text.num_layers * layer, head)


def _moving(size: float) -> Cost:
    """Returns the cost of a kernel that reads and writes `size` bytes in all and multiplies no matrices."""
    return Cost(size, 0)


def _product(
    rows: int, inputs: int, outputs: int, *, stored: float = _HALF, result: int = _HALF, added: float = 0
) -> Cost:
    """Returns the cost of fp16 rows times a matrix of `stored` bytes a weight.

    Each number of the result takes `result` bytes, and `added` bytes are read besides.
    """
    size = _HALF * rows * inputs + stored * inputs * outputs + result * rows * outputs
    return Cost(size + added, 2 * rows * inputs * outputs)


def _unpacking(weights: int, precision: str) -> Path:
    if precision not in PACKED_PRECISIONS:
        return ()
    return (_moving((WEIGHT_BYTES[precision] + _HALF) * weights),)


def _add_and_normalise(rows: int, text: TextConfig) -> Cost:
    """Returns the cost of adding a change to the sum, both fp32, and of normalising the new sum to fp16."""
    return _moving(rows * text.hidden_size * (3 * _FLOAT + _HALF))


def _attention(text: TextConfig, new: int, past: int) -> Cost:
    """Returns the cost of causal attention of `new` tokens to themselves and to `past` others."""
    queries, keys_and_values = text.num_heads * text.head_dim, 2 * text.num_kv_heads * text.head_dim
    pairs = new * past + new * (new + 1) / 2
    return Cost(_HALF * (2 * new * queries + (past + new) * keys_and_values), 4 * pairs * queries)
