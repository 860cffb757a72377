"""Names of the tensors of a checkpoint that make up each of our parameters.

Every parameter is the concatenation, along the first axis, of one or more tensors of the checkpoint in their own
orientation. Only the vision encoder's `positions` is a sum: see `PositionSources`. Parameters have the names that they
have in the torch modules of convert/.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from litevlm_ros.model_config import TextConfig, VisionConfig

Sources = dict[str, tuple[str, ...]]
"""Parameter name → the checkpoint tensors it is concatenated from."""


@dataclass(frozen=True)
class PositionSources:
    """Names of the tensors whose sum is the vision encoder's `positions`: `cls` in row 0, the bias in all others."""

    embedding: str
    cls: str
    patch_bias: str


_ORIGINAL_VISION_MARK = "embeddings.patch_embedding.weight"
_NATIVE_VISION_MARK = "embeddings.patch_embeddings.projection.weight"
_TEXT_MARK = "embed_tokens.weight"


def vision_sources(keys: Iterable[str], config: VisionConfig) -> tuple[Sources, PositionSources] | None:
    """Returns the sources of the vision encoder, or None if the names are not OpenGVLab's or transformers'."""
    for key in keys:
        if key.endswith(_ORIGINAL_VISION_MARK):
            return _original_vision(key.removesuffix(_ORIGINAL_VISION_MARK), config)
        if key.endswith(_NATIVE_VISION_MARK):
            return _native_vision(key.removesuffix(_NATIVE_VISION_MARK), config)
    return None


def text_sources(keys: Iterable[str], config: TextConfig) -> Sources | None:
    """Returns the sources of the text decoder, or None if `keys` have no language model.

    The keys of the language model may carry any prefix.
    """
    known = set(keys)
    mark = next((key for key in sorted(known) if key.endswith(_TEXT_MARK)), None)
    if mark is None:
        return None
    prefix = mark.removesuffix(_TEXT_MARK)
    sources: Sources = {"embed_tokens.weight": (mark,), "norm.weight": (f"{prefix}norm.weight",)}
    for index in range(config.num_layers):
        ours, theirs = f"layers.{index}", f"{prefix}layers.{index}"
        sources[f"{ours}.input_norm.weight"] = (f"{theirs}.input_layernorm.weight",)
        sources[f"{ours}.post_norm.weight"] = (f"{theirs}.post_attention_layernorm.weight",)
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            sources[f"{ours}.qkv.{kind}"] = tuple(f"{theirs}.self_attn.{part}_proj.{kind}" for part in "qkv")
        for norm in ("q_norm", "k_norm") if config.qk_norm else ():
            sources[f"{ours}.{norm}.weight"] = (f"{theirs}.self_attn.{norm}.weight",)
        sources[f"{ours}.o_proj.weight"] = (f"{theirs}.self_attn.o_proj.weight",)
        sources[f"{ours}.gate_up.weight"] = (f"{theirs}.mlp.gate_proj.weight", f"{theirs}.mlp.up_proj.weight")
        sources[f"{ours}.down.weight"] = (f"{theirs}.mlp.down_proj.weight",)
    own_head = lm_head_key(known) or "lm_head.weight"
    sources["lm_head.weight"] = (mark if config.tie_word_embeddings else own_head,)
    return sources


def lm_head_key(keys: Iterable[str]) -> str | None:
    """Returns the output projection's key, or None if the checkpoint has none of its own."""
    return next((key for key in keys if key == "lm_head.weight" or key.endswith(".lm_head.weight")), None)


def is_vision_key(key: str) -> bool:
    """Tells whether a tensor of a whole InternVL checkpoint belongs to InternViT or the projector."""
    return any(part in ("vision_model", "vision_tower", "mlp1", "multi_modal_projector") for part in key.split("."))


def is_derived(key: str) -> bool:
    """Tells whether the architecture implies a tensor, which some checkpoints carry all the same."""
    return key.endswith("rotary_emb.inv_freq") or key.endswith("position_ids")


def _original_vision(prefix: str, config: VisionConfig) -> tuple[Sources, PositionSources]:
    sources = _projector(prefix.removesuffix("vision_model.") + "mlp1.", norm="0", first="1", second="3")
    sources["patch_embedding.weight"] = (f"{prefix}{_ORIGINAL_VISION_MARK}",)
    for index in range(config.num_layers):
        ours, theirs = f"layers.{index}", f"{prefix}encoder.layers.{index}"
        sources[f"{ours}.qkv.weight"] = (f"{theirs}.attn.qkv.weight",)
        if config.qkv_bias:
            sources[f"{ours}.qkv.bias"] = (f"{theirs}.attn.qkv.bias",)
        sources |= _block(ours, theirs, norms=("norm1", "norm2"), scales=("ls1", "ls2"), proj="attn.proj")
    embeddings = f"{prefix}embeddings."
    return sources, PositionSources(
        f"{embeddings}position_embedding", f"{embeddings}class_embedding", f"{embeddings}patch_embedding.bias"
    )


def _native_vision(prefix: str, config: VisionConfig) -> tuple[Sources, PositionSources]:
    projector = prefix.removesuffix("vision_tower.") + "multi_modal_projector."
    sources = _projector(projector, norm="layer_norm", first="linear_1", second="linear_2")
    sources["patch_embedding.weight"] = (f"{prefix}{_NATIVE_VISION_MARK}",)
    for index in range(config.num_layers):
        ours, theirs = f"layers.{index}", f"{prefix}encoder.layer.{index}"
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            sources[f"{ours}.qkv.{kind}"] = tuple(f"{theirs}.attention.{part}_proj.{kind}" for part in "qkv")
        norms, scales = ("layernorm_before", "layernorm_after"), ("lambda_1", "lambda_2")
        sources |= _block(ours, theirs, norms=norms, scales=scales, proj="attention.projection_layer")
    embeddings = f"{prefix}embeddings."
    return sources, PositionSources(
        f"{embeddings}position_embeddings",
        f"{embeddings}cls_token",
        f"{embeddings}patch_embeddings.projection.bias",
    )


def _block(ours: str, theirs: str, norms: tuple[str, str], scales: tuple[str, str], proj: str) -> Sources:
    modules = {"norm1": norms[0], "norm2": norms[1], "proj": proj, "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    sources: Sources = {f"{ours}.ls1": (f"{theirs}.{scales[0]}",), f"{ours}.ls2": (f"{theirs}.{scales[1]}",)}
    for name, module in modules.items():
        for kind in ("weight", "bias"):
            sources[f"{ours}.{name}.{kind}"] = (f"{theirs}.{module}.{kind}",)
    return sources


def _projector(prefix: str, norm: str, first: str, second: str) -> Sources:
    modules = {"norm": norm, "fc1": first, "fc2": second}
    return {
        f"projector.{name}.{kind}": (f"{prefix}{module}.{kind}",)
        for name, module in modules.items()
        for kind in ("weight", "bias")
    }
