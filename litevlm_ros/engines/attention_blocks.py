"""The blocks of attention alone, for GPUs where cuDNN does not compute it: softmax(Q Kᵀ / √D) V, with fp32 scores.

Queries and keys are multiplied in fp32, for their products in fp16 would pass 65504 for Qwen2, whose keys have large
biases; a GPU with TF32 does that on its tensor cores, and exactly, because TF32 holds every fp16 and bf16 number.
"""

from __future__ import annotations

from litevlm_ros.engines.block_graph import FLOAT, ROWS, TYPES, BlockGraph, BlockTensor, Body
from litevlm_ros.engines.text_blocks import qkv_width
from litevlm_ros.model_config import TextConfig, VisionConfig

ATTENTION = "attention"
"""The name of these blocks."""

CAPACITY = "C"
"""The name of the number of rows of the KV cache, which plans fix."""

_INT32 = "int32"
_MASKED = -1e30
"""The score of a key that must not be seen: finite, and zero after any softmax."""


def vision_attention(config: VisionConfig, computed: str) -> BlockGraph:
    """Returns the attention within each tile, in `computed`, 'fp16' or 'bf16'.

    `qkv` [R, 3 * hidden size] → `output` [R, hidden size], where R is a multiple of the 1 + grid² rows of a tile.
    """
    kind, width, heads = TYPES[computed], config.hidden_size, config.num_heads
    rows, size = 1 + config.grid**2, width // heads
    body = Body(kind)
    split = body.op(f"Reshape(qkv, {body.integers((-1, rows, 3, heads, size))})")
    swapped = body.op(f"Transpose<perm = [2, 0, 3, 1, 4]>({split})")
    ones = body.integers((1, 1, 1))
    body.op(f"Split<axis = 0>({swapped}, {ones})", "queries, keys, values")
    queries, keys, values = (
        body.op(f"Reshape({name}, {body.integers((-1, heads, rows, size))})") for name in ("queries", "keys", "values")
    )
    scores = _scores(body, queries, body.op(f"Transpose<perm = [0, 1, 3, 2]>({keys})"), size)
    mixed = body.op(f"MatMul({_softmax(body, scores)}, {values})")
    merged = body.op(f"Transpose<perm = [0, 2, 1, 3]>({mixed})")
    body.op(f"Reshape({merged}, {body.integers((-1, width))})", "output")
    return BlockGraph(
        ATTENTION,
        (BlockTensor("qkv", kind, (ROWS, 3 * width)),),
        (),
        (BlockTensor("output", kind, (ROWS, width)),),
        str(body),
    )


def text_attention(config: TextConfig, computed: str) -> BlockGraph:
    """Returns the attention of new tokens to the cache, which holds their keys and values already.

    `qkv` [R, qkv width] (only the queries are read), `keys` and `values` [C, G, D], `lengths` int32 [2] (the number of
    new tokens, and the valid rows of the cache with them), `row_indices` int32 [R] (the place of each row among the new
    tokens) and `column_indices` int32 [C] (0, 1, ...) → `output` [R, heads * D]. Rows beyond the new tokens are finite.
    The heads that share keys are rows of one matrix [G, R * heads per group, D], so keys are never repeated.
    """
    kind, heads, groups, size = TYPES[computed], config.num_heads, config.num_kv_heads, config.head_dim
    sharing = heads // groups
    body = Body(kind)
    start, end, axis = body.integers((0,)), body.integers((heads * size,)), body.integers((1,))
    all_queries = body.op(f"Slice(qkv, {start}, {end}, {axis})")
    grouped = body.op(f"Reshape({all_queries}, {body.integers((-1, groups, sharing, size))})")
    swapped = body.op(f"Transpose<perm = [1, 0, 2, 3]>({grouped})")
    queries = body.op(f"Reshape({swapped}, {body.integers((groups, -1, size))})")
    flat = _scores(body, queries, body.op("Transpose<perm = [1, 2, 0]>(keys)"), size)
    scores = body.op(f"Reshape({flat}, {_shape(body, (groups, -1, sharing))})")
    seen = _visible(body)
    masked = body.op(f"Where({seen}, {scores}, {body.constant(_MASKED)})")
    weights = body.op(f"Reshape({_softmax(body, masked)}, {_shape(body, (groups, -1))})")
    mixed = body.op(f"MatMul({weights}, {body.op('Transpose<perm = [1, 0, 2]>(values)')})")
    heads_apart = body.op(f"Reshape({mixed}, {body.integers((groups, -1, sharing, size))})")
    rows_first = body.op(f"Transpose<perm = [1, 0, 2, 3]>({heads_apart})")
    body.op(f"Reshape({rows_first}, {body.integers((-1, heads * size))})", "output")
    return BlockGraph(
        ATTENTION,
        (
            BlockTensor("qkv", kind, (ROWS, qkv_width(config))),
            BlockTensor("keys", kind, (CAPACITY, groups, size)),
            BlockTensor("values", kind, (CAPACITY, groups, size)),
            BlockTensor("lengths", _INT32, (2,)),
            BlockTensor("row_indices", _INT32, (ROWS,)),
            BlockTensor("column_indices", _INT32, (CAPACITY,)),
        ),
        (),
        (BlockTensor("output", kind, (ROWS, heads * size)),),
        str(body),
    )


def _scores(body: Body, queries: str, keys: str, size: int) -> str:
    """Multiplies queries [..., rows, D] by keys [..., D, columns], scaled by 1 / √D, in fp32."""
    products = body.op(f"MatMul({body.cast(queries, FLOAT)}, {body.cast(keys, FLOAT)})")
    return body.op(f"Mul({products}, {body.constant(size**-0.5)})")


def _softmax(body: Body, scores: str) -> str:
    return body.cast(body.op(f"Softmax<axis = -1>({scores})"), body.kind)


def _shape(body: Body, sizes: tuple[int, ...]) -> str:
    """Returns a shape for Reshape: `sizes`, and the number of columns behind them."""
    columns = body.op("Shape(column_indices)")
    return body.op(f"Concat<axis = 0>({body.integers(sizes)}, {columns})")


def _visible(body: Body) -> str:
    """Returns whether a row sees a column, bool [R, 1, C]: a new token sees the cache up to its own row there."""
    new, valid = (body.op(f"Gather(lengths, {body.integers((index,))})") for index in (0, 1))
    own = body.op(f"Add(row_indices, {body.op(f'Sub({valid}, {new})')})")
    rows = body.op(f"Unsqueeze({own}, {body.integers((1, 2))})")
    return body.op(f"LessOrEqual(column_indices, {rows})")
