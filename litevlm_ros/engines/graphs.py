"""The graphs of all blocks of a part, and their hash, by which an engine is recognised as this version's."""

from __future__ import annotations

import hashlib

from litevlm_ros.engines.attention_blocks import text_attention, vision_attention
from litevlm_ros.engines.block_graph import BlockGraph
from litevlm_ros.engines.text_blocks import text_blocks
from litevlm_ros.engines.vision_blocks import vision_blocks
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import VISION
from litevlm_ros.precision import computed_in


def block_graphs(part: str, precision: str, model: ModelConfig) -> tuple[BlockGraph, ...]:
    """Returns all blocks of `part` (VISION or TEXT), the fallback for attention among them: an engine's graphs."""
    computed = computed_in(precision)
    if part == VISION:
        return (*vision_blocks(model, computed), vision_attention(model.vision, computed))
    return (*text_blocks(model.text, computed), text_attention(model.text, computed))


def graph_hash(part: str, precision: str, model: ModelConfig) -> str:
    """Returns the SHA-256 over the texts of `block_graphs`, which hold all sizes of the model. Needs no onnx."""
    digest = hashlib.sha256()
    for block in block_graphs(part, precision, model):
        digest.update(f"{block.text()}\0".encode())
    return digest.hexdigest()
