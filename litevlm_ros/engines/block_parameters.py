"""Parameters of a model that each run of a block takes as its weights.

Parameters have the names of checkpoint/keys.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from litevlm_ros.engines.block_graph import TYPES, BlockGraph, BlockTensor
from litevlm_ros.engines.text_blocks import padded_vocabulary, text_blocks
from litevlm_ros.engines.vision_blocks import vision_blocks
from litevlm_ros.model_config import ModelConfig, TextConfig

POSITIONS = "positions"
"""The vision encoder's one parameter that is a sum: see `keys.PositionSources`."""
EMBEDDING = "embed_tokens.weight"

_HEAD = "lm_head.weight"
_PATCH_EMBEDDING = "patch_embedding.weight"

_VISION_NAMES = {
    "norm1_weight": "norm1.weight", "norm1_bias": "norm1.bias", "qkv_weight": "qkv.weight", "qkv_bias": "qkv.bias",
    "proj": "proj.weight", "proj_bias": "proj.bias", "scale1": "ls1", "norm2_weight": "norm2.weight",
    "norm2_bias": "norm2.bias", "fc1": "fc1.weight", "fc1_bias": "fc1.bias", "fc2": "fc2.weight",
    "fc2_bias": "fc2.bias", "scale2": "ls2",
}  # fmt: skip
_VISION_ENDS = {
    "patch_embedding": _PATCH_EMBEDDING, "positions": POSITIONS, "norm_weight": "projector.norm.weight",
    "norm_bias": "projector.norm.bias", "projector1": "projector.fc1.weight", "projector1_bias": "projector.fc1.bias",
    "projector2": "projector.fc2.weight", "projector2_bias": "projector.fc2.bias",
}  # fmt: skip
_TEXT_NAMES = {
    "input_norm": "input_norm.weight", "qkv_weight": "qkv.weight", "qkv_bias": "qkv.bias", "q_norm": "q_norm.weight",
    "k_norm": "k_norm.weight", "o_proj": "o_proj.weight", "post_norm": "post_norm.weight",
    "gate_up": "gate_up.weight", "down": "down.weight",
}  # fmt: skip
"""Names of weights in blocks → names of a layer's parameters, and of those that no layer has."""


@dataclass(frozen=True)
class BlockParameter:
    """A parameter as an input of a block.

    `tensor.shape` is that of the input, zero behind the parameter's `shape`; a bias is an input of one row.
    """

    name: str
    tensor: BlockTensor
    shape: tuple[int, ...]


def vision_runs(model: ModelConfig, precision: str) -> tuple[tuple[BlockParameter, ...], ...]:
    """Returns the weights of each run of the vision encoder's blocks, in `precision`, 'fp16' or 'bf16'.

    The runs are 'patches', then 'qkv' and 'mlp' for each layer, then 'projector'.
    """
    shapes = {_PATCH_EMBEDDING: (model.vision.hidden_size, 3 * model.vision.patch_size**2)}
    patches, qkv, mlp, projector = vision_blocks(model, precision)

    def outside(graph: BlockGraph) -> tuple[BlockParameter, ...]:
        return _parameters(graph, _VISION_ENDS, shapes)

    layers = _layers((qkv, mlp), model.vision.num_layers, _VISION_NAMES)
    return outside(patches), *layers, outside(projector)


def text_runs(config: TextConfig, precision: str) -> tuple[tuple[BlockParameter, ...], ...]:
    """Returns the weights of each run of the text decoder's blocks, in `precision`, 'fp16' or 'bf16'.

    The runs are 'qkv' and 'mlp' for each layer, then 'head'.
    """
    name = EMBEDDING if config.tie_word_embeddings else _HEAD
    qkv, mlp, head = text_blocks(config, precision)
    shapes = {name: (config.vocab_size, config.hidden_size)}
    layers = _layers((qkv, mlp), config.num_layers, _TEXT_NAMES)
    return *layers, _parameters(head, {"norm": "norm.weight", "head": name}, shapes)


def embedding(config: TextConfig, precision: str) -> BlockParameter:
    """Returns the table of the words, [padded vocabulary, H], as it is looked up in; a tied head is the same."""
    shape = config.vocab_size, config.hidden_size
    padded = padded_vocabulary(config), config.hidden_size
    return BlockParameter(EMBEDDING, BlockTensor("embedding", TYPES[precision], padded), shape)


def _layers(
    graphs: Iterable[BlockGraph], layers: int, names: Mapping[str, str]
) -> Iterator[tuple[BlockParameter, ...]]:
    """Yields the weights of a layer's `graphs` for each layer."""
    for layer, graph in itertools.product(range(layers), graphs):
        yield _parameters(graph, {name: f"layers.{layer}.{parameter}" for name, parameter in names.items()}, {})


def _parameters(
    graph: BlockGraph, names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[BlockParameter, ...]:
    """Returns the weights of one run. `shapes` are those of parameters that are padded."""
    parameters = []
    for tensor in graph.weights:
        name, shape = names[tensor.name], tuple(map(int, tensor.shape))
        parameters.append(BlockParameter(name, tensor, shapes.get(name) or (shape[1:] if shape[0] == 1 else shape)))
    return tuple(parameters)
