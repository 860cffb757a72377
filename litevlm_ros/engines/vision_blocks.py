"""The blocks of the vision encoder: InternViT (arXiv 2312.14238) and the projector, between them cuDNN's attention.

Rows are patches and CLS tokens of all tiles, 1 + grid² for each tile. The sum over the layers is fp32: rounded to fp16
at each of 48 additions, it would be most of the error of the visual tokens. A block passes on that sum and the last
change of it, and the next block adds the two.
"""

from __future__ import annotations

from litevlm_ros.engines.block_graph import FLOAT, ROWS, TYPES, BlockGraph, BlockTensor, Body, wide_type
from litevlm_ros.model_config import ModelConfig, VisionConfig

PROJECTOR_EPS = 1e-5
"""The epsilon of the projector's LayerNorm, PyTorch's default."""


def patch_width(config: VisionConfig) -> int:
    """Returns the columns of the patch matrix: the numbers of a patch, up to a multiple of 8 as tensor cores want."""
    return -(-3 * config.patch_size**2 // 8) * 8


def vision_blocks(model: ModelConfig, precision: str) -> tuple[BlockGraph, ...]:
    """Returns the blocks 'patches', 'qkv', 'mlp' and 'projector' in `precision`, 'fp16' or 'bf16'."""
    kind = TYPES[precision]
    return _patches(model.vision, kind), _qkv(model.vision, kind), _mlp(model.vision, kind), _projector(model, kind)


def _patches(config: VisionConfig, kind: str) -> BlockGraph:
    """Patches [R, patch width] → the sum that the layers begin with. A CLS row has a patch of zeros."""
    width, rows = config.hidden_size, 1 + config.grid**2
    body = Body(kind)
    tiles = body.op(
        f"Reshape({body.linear('patches', 'patch_embedding', to=FLOAT)}, {body.integers((-1, rows, width))})"
    )
    placed = body.op(f"Add({tiles}, positions)")
    body.op(f"Reshape({placed}, {body.integers((-1, width))})", "sum")
    return BlockGraph(
        "patches",
        (BlockTensor("patches", kind, (ROWS, patch_width(config))),),
        (
            BlockTensor("patch_embedding", kind, (width, patch_width(config))),
            BlockTensor("positions", FLOAT, (rows, width)),
        ),
        (BlockTensor("sum", FLOAT, (ROWS, width)),),
        str(body),
    )


def _qkv(config: VisionConfig, kind: str) -> BlockGraph:
    """The sum and its last change → their sum, and queries, keys and values of the next layer."""
    width = config.hidden_size
    body = Body(kind)
    body.op(f"Add(sum, {body.cast('change', FLOAT)})", "residual")
    normalised = body.layer_norm("residual", "norm1_weight", "norm1_bias", config.layer_norm_eps)
    body.linear(normalised, "qkv_weight", "qkv_bias" if config.qkv_bias else "", to=kind, name="qkv")
    weights = (
        BlockTensor("norm1_weight", FLOAT, (width,)),
        BlockTensor("norm1_bias", FLOAT, (width,)),
        BlockTensor("qkv_weight", kind, (3 * width, width)),
    )
    return BlockGraph(
        "qkv",
        (*_sum_and_change(config, kind), *body.unit()),
        (*weights, BlockTensor("qkv_bias", wide_type(kind), (1, 3 * width))) if config.qkv_bias else weights,
        (BlockTensor("residual", FLOAT, (ROWS, width)), BlockTensor("qkv", kind, (ROWS, 3 * width))),
        str(body),
    )


def _mlp(config: VisionConfig, kind: str) -> BlockGraph:
    """The rest of a layer behind its attention: output projection and MLP."""
    width, inner = config.hidden_size, config.intermediate_size
    body = Body(kind)
    body.op(f"Add(residual, {body.linear('attention', 'proj', 'proj_bias', 'scale1', to=FLOAT)})", "sum")
    normalised = body.layer_norm("sum", "norm2_weight", "norm2_bias", config.layer_norm_eps)
    active = body.gelu(body.linear(normalised, "fc1", "fc1_bias", to=body.wide))
    body.linear(active, "fc2", "fc2_bias", "scale2", to=kind, name="change")
    return BlockGraph(
        "mlp",
        (BlockTensor("attention", kind, (ROWS, width)), BlockTensor("residual", FLOAT, (ROWS, width))),
        (
            BlockTensor("proj", kind, (width, width)),
            BlockTensor("proj_bias", wide_type(kind), (1, width)),
            BlockTensor("scale1", wide_type(kind), (width,)),
            BlockTensor("norm2_weight", FLOAT, (width,)),
            BlockTensor("norm2_bias", FLOAT, (width,)),
            BlockTensor("fc1", kind, (inner, width)),
            BlockTensor("fc1_bias", wide_type(kind), (1, inner)),
            BlockTensor("fc2", kind, (width, inner)),
            BlockTensor("fc2_bias", wide_type(kind), (1, width)),
            BlockTensor("scale2", wide_type(kind), (width,)),
        ),
        _sum_and_change(config, kind),
        str(body),
    )


def _projector(model: ModelConfig, kind: str) -> BlockGraph:
    """The last layer's sum and change → visual tokens: the pixel shuffle (`ps_version` v2) and InternVL's mlp1.

    R are the rows of its inputs; the visual tokens have fewer, whose number is named T.
    """
    config, text_width = model.vision, model.text.hidden_size
    width, side, fold, channels = (
        config.hidden_size,
        config.grid // config.shuffle,
        config.shuffle,
        config.projector_size,
    )
    body = Body(kind)
    hidden = body.op(f"Add(sum, {body.cast('change', FLOAT)})")
    tiles = body.op(f"Reshape({hidden}, {body.integers((-1, 1 + config.grid**2, width))})")
    start, end, axis = body.integers((1,)), body.integers((1 + config.grid**2,)), body.integers((1,))
    patches = body.op(f"Slice({tiles}, {start}, {end}, {axis})")
    squares = body.op(f"Reshape({patches}, {body.integers((-1, side, fold, side, fold, width))})")
    folded = body.op(f"Transpose<perm = [0, 1, 3, 2, 4, 5]>({squares})")
    rows = body.op(f"Reshape({folded}, {body.integers((-1, channels))})")
    normalised = body.layer_norm(rows, "norm_weight", "norm_bias", PROJECTOR_EPS)
    active = body.gelu(body.linear(normalised, "projector1", "projector1_bias", to=body.wide))
    body.linear(active, "projector2", "projector2_bias", to=kind, name="visual_tokens")
    return BlockGraph(
        "projector",
        _sum_and_change(config, kind),
        (
            BlockTensor("norm_weight", FLOAT, (channels,)),
            BlockTensor("norm_bias", FLOAT, (channels,)),
            BlockTensor("projector1", kind, (text_width, channels)),
            BlockTensor("projector1_bias", wide_type(kind), (1, text_width)),
            BlockTensor("projector2", kind, (text_width, text_width)),
            BlockTensor("projector2_bias", wide_type(kind), (1, text_width)),
        ),
        (BlockTensor("visual_tokens", kind, ("T", text_width)),),
        str(body),
    )


def _sum_and_change(config: VisionConfig, kind: str) -> tuple[BlockTensor, BlockTensor]:
    return (
        BlockTensor("sum", FLOAT, (ROWS, config.hidden_size)),
        BlockTensor("change", kind, (ROWS, config.hidden_size)),
    )
