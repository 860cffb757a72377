"""A random InternVL as transformers' own class, and its checkpoint in the forms in which people publish it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")
transformers = pytest.importorskip("transformers", reason="the reference model is transformers' InternVL")

from safetensors.torch import save_file  # noqa: E402

from litevlm_ros.architectures import LANGUAGE_MODELS  # noqa: E402
from litevlm_ros.convert.transformers_model import internvl_config  # noqa: E402
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig  # noqa: E402
from litevlm_ros.prompt_families import HERMES  # noqa: E402

Tensors = dict[str, Any]


_QWEN2 = TextConfig(48, 80, 3, 6, 2, 8, 1e-6, 1e6, 97, False, 512)
_QWEN3 = replace(_QWEN2, head_dim=16, qkv_bias=False, qk_norm=True)
_VISION = VisionConfig(32, 64, 2, 2, image_size=56, patch_size=14)
_IMAGE_TOKEN = 96


def reference_model(*, tied: bool = False, qkv_bias: bool = True, qwen3: bool = False) -> Any:
    """Makes a tiny model with Qwen2, or Qwen3, as `random_model` does. `qkv_bias` is the vision encoder's."""
    text = replace(_QWEN3 if qwen3 else _QWEN2, tie_word_embeddings=tied)
    model = ModelConfig(replace(_VISION, qkv_bias=qkv_bias), text, HERMES, True, 6)
    return random_model(model, _IMAGE_TOKEN)


def random_model(model: ModelConfig, image_token: int) -> Any:
    """Makes transformers' class of any shapes in fp32.

    Its weights are scaled so that every layer changes its input visibly and logits spread widely.
    """
    config = internvl_config(model)
    config.image_token_id = image_token
    config._attn_implementation = "eager"
    theirs = transformers.InternVLForConditionalGeneration(config).eval().float()
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() >= 2 and "embed" not in name.rsplit(".", 2)[-2]:
                parameter.copy_(noise * 1.5 / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.5 * noise)
    return theirs


def _original_tensors(model: Any) -> Tensors:
    """Returns the weights under OpenGVLab's names, with Q, K and V of the vision encoder fused."""
    state = model.state_dict()
    tensors: Tensors = {}
    for key, tensor in state.items():
        if key == "lm_head.weight":
            if not model.config.text_config.tie_word_embeddings:
                tensors["language_model.lm_head.weight"] = tensor
        elif key.startswith("model.language_model."):
            tensors[key.replace("model.language_model.", "language_model.model.")] = tensor
        elif key.startswith("model.multi_modal_projector."):
            module, kind = key.split(".")[-2:]
            tensors[f"mlp1.{ {'layer_norm': 0, 'linear_1': 1, 'linear_2': 3}[module] }.{kind}"] = tensor
        elif ".k_proj." not in key and ".v_proj." not in key:
            tensors[_original_vision_key(key)] = _fused(state, key)
    return tensors


def _fused(state: Tensors, key: str) -> Any:
    if ".q_proj." not in key:
        return state[key]
    return torch.cat([state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"])


def _original_vision_key(key: str) -> str:
    for theirs, original in (
        ("model.vision_tower.", "vision_model."),
        ("embeddings.cls_token", "embeddings.class_embedding"),
        ("embeddings.position_embeddings", "embeddings.position_embedding"),
        ("embeddings.patch_embeddings.projection", "embeddings.patch_embedding"),
        ("encoder.layer.", "encoder.layers."),
        ("attention.q_proj", "attn.qkv"),
        ("attention.projection_layer", "attn.proj"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("lambda_1", "ls1"),
        ("lambda_2", "ls2"),
    ):
        key = key.replace(theirs, original)
    return key


def _original_config(model: Any, template: str) -> dict[str, Any]:
    """Returns the configuration as OpenGVLab writes it."""
    vision, text = model.config.vision_config, model.config.text_config
    language = next(row for row in LANGUAGE_MODELS if row.model_type == text.model_type)
    side = vision.image_size[0]
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "template": template,
        "ps_version": "v2",
        "select_layer": -1,
        "force_image_size": side,
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "max_dynamic_patch": 6,
        "use_thumbnail": True,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "image_size": side,
            "patch_size": vision.patch_size[0],
            "num_channels": 3,
            "qkv_bias": vision.attention_bias,
            "qk_normalization": False,
            "norm_type": "layer_norm",
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
        },
        "llm_config": {
            "architectures": [language.architecture],
            "model_type": language.model_type,
            "hidden_act": "silu",
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            **({"head_dim": text.head_dim} if language.head_dim else {}),
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.max_position_embeddings,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": 1000000.0,
            "tie_word_embeddings": text.tie_word_embeddings,
            "use_sliding_window": False,
        },
    }


def write_original(
    model: Any, directory: Path, *, shards: int = 1, dtype: Any = torch.float32, template: str = HERMES
) -> Path:
    """Writes a whole checkpoint as OpenGVLab publishes it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(_original_config(model, template)))
    tensors = {key: tensor.to(dtype).contiguous() for key, tensor in _original_tensors(model).items()}
    if shards == 1:
        save_file(tensors, directory / "model.safetensors")
        return directory
    names = [f"model-{index + 1:05d}-of-{shards:05d}.safetensors" for index in range(shards)]
    where = {key: names[index % shards] for index, key in enumerate(tensors)}
    for name in names:
        save_file({key: tensors[key] for key in tensors if where[key] == name}, directory / name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return directory


def write_native(model: Any, directory: Path) -> Path:
    """Writes a whole checkpoint as transformers does."""
    model.save_pretrained(directory)
    return directory
