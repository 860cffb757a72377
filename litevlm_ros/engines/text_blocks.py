"""The blocks of the text decoder: Qwen2 (arXiv 2407.10671) or Qwen3 (arXiv 2505.09388), and its head.

Attention lies between them. Rows are new tokens. The sum over the layers is fp32, because that of Qwen2-1.5B passes
fp16's largest number. So are its changes, because a single MLP's may. A block passes on the sum and its last change,
and the next block adds the two.
"""

from __future__ import annotations

from litevlm_ros.engines.block_graph import FLOAT, ROWS, TYPES, BlockGraph, BlockTensor, Body, wide_type
from litevlm_ros.model_config import TextConfig

_ALIGNMENT = 8


def padded_vocabulary(config: TextConfig) -> int:
    """Returns the rows of the head: the vocabulary up to a multiple of 8, as tensor cores want. The rest is zero."""
    return -(-config.vocab_size // _ALIGNMENT) * _ALIGNMENT


def qkv_width(config: TextConfig) -> int:
    """Returns the columns of queries, keys and values together."""
    return (config.num_heads + 2 * config.num_kv_heads) * config.head_dim


def text_blocks(config: TextConfig, precision: str) -> tuple[BlockGraph, ...]:
    """Returns the blocks 'qkv', 'mlp' and 'head' in `precision`, 'fp16' or 'bf16'."""
    kind = TYPES[precision]
    return _qkv(config, kind), _mlp(config, kind), _head(config, kind)


def _qkv(config: TextConfig, kind: str) -> BlockGraph:
    """The sum and its last change → their sum, and queries, keys and values of the next layer, not yet rotated."""
    width = config.hidden_size
    weights = [
        BlockTensor("input_norm", FLOAT, (width,)),
        BlockTensor("qkv_weight", kind, (qkv_width(config), width)),
    ]
    if config.qkv_bias:
        weights.append(BlockTensor("qkv_bias", wide_type(kind), (1, qkv_width(config))))
    if config.qk_norm:
        weights += (BlockTensor(name, FLOAT, (config.head_dim,)) for name in ("q_norm", "k_norm"))
    body = Body(kind)
    body.op("Add(sum, change)", "residual")
    normalised = body.rms_norm("residual", "input_norm", config.rms_norm_eps)
    product = "" if config.qk_norm else "qkv"
    packed = body.linear(normalised, "qkv_weight", "qkv_bias" if config.qkv_bias else "", to=kind, name=product)
    if config.qk_norm:
        _normalise_heads(body, packed, config)
    return BlockGraph(
        "qkv",
        (*_sum_and_change(config), *body.unit()),
        tuple(weights),
        (BlockTensor("residual", FLOAT, (ROWS, width)), BlockTensor("qkv", kind, (ROWS, qkv_width(config)))),
        str(body),
    )


def _normalise_heads(body: Body, packed: str, config: TextConfig) -> None:
    """Writes 'qkv', in which each head of the queries and of the keys in `packed` has gone through its RMSNorm."""
    size, counts = config.head_dim, (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    widths = body.integers([count * size for count in counts])
    body.op(f"Split<axis = 1>({packed}, {widths})", "queries, keys, values")
    parts = []
    for part, count, weight in (("queries", counts[0], "q_norm"), ("keys", counts[1], "k_norm")):
        heads = body.op(f"Reshape({body.cast(part, FLOAT)}, {body.integers((-1, count, size))})")
        normalised = body.rms_norm(heads, weight, config.rms_norm_eps)
        parts.append(body.op(f"Reshape({normalised}, {body.integers((-1, count * size))})"))
    body.op(f"Concat<axis = 1>({', '.join(parts)}, values)", "qkv")


def _mlp(config: TextConfig, kind: str) -> BlockGraph:
    """The rest of a layer behind its attention: output projection and MLP."""
    width, inner = config.hidden_size, config.intermediate_size
    body = Body(kind)
    body.op(f"Add(residual, {body.linear('attention', 'o_proj', to=FLOAT)})", "sum")
    normalised = body.rms_norm("sum", "post_norm", config.rms_norm_eps)
    both = body.linear(normalised, "gate_up", to=kind)
    body.op(f"Split<axis = 1>({both}, {body.integers((inner, inner))})", "gate, up")
    body.linear(body.silu_gate("gate", "up"), "down", to=FLOAT, name="change")
    return BlockGraph(
        "mlp",
        (
            BlockTensor("attention", kind, (ROWS, config.num_heads * config.head_dim)),
            BlockTensor("residual", FLOAT, (ROWS, width)),
            *body.unit(),
        ),
        (
            BlockTensor("o_proj", kind, (width, config.num_heads * config.head_dim)),
            BlockTensor("post_norm", FLOAT, (width,)),
            BlockTensor("gate_up", kind, (2 * inner, width)),
            BlockTensor("down", kind, (width, inner)),
        ),
        _sum_and_change(config),
        str(body),
    )


def _head(config: TextConfig, kind: str) -> BlockGraph:
    """The last layer's sum and change → the logits of the rows whose logits are asked for."""
    body = Body(kind)
    hidden = body.rms_norm(body.op("Add(sum, change)"), "norm", config.rms_norm_eps)
    body.linear(hidden, "head", to=kind, name="logits")
    return BlockGraph(
        "head",
        (*_sum_and_change(config), *body.unit()),
        (
            BlockTensor("norm", FLOAT, (config.hidden_size,)),
            BlockTensor("head", kind, (padded_vocabulary(config), config.hidden_size)),
        ),
        (BlockTensor("logits", kind, (ROWS, padded_vocabulary(config))),),
        str(body),
    )


def _sum_and_change(config: TextConfig) -> tuple[BlockTensor, BlockTensor]:
    return (
        BlockTensor("sum", FLOAT, (ROWS, config.hidden_size)),
        BlockTensor("change", FLOAT, (ROWS, config.hidden_size)),
    )
