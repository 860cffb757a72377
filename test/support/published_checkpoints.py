"""A tiny random InternVL as transformers' own class, and its checkpoint in the forms in which people publish it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is needed to convert models: pip install 'litevlm_ros[convert]'")
transformers = pytest.importorskip("transformers", reason="the reference model is transformers' InternVL")

from safetensors.torch import save_file  # noqa: E402

Tensors = dict[str, Any]


def reference_model(*, tied: bool = False, qkv_bias: bool = True) -> Any:
    """Makes a model whose weights are scaled so that every layer changes its input visibly and logits spread widely."""
    config = transformers.InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [56, 56],
            "patch_size": [14, 14],
            "attention_bias": qkv_bias,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "vocab_size": 97,
            "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "tie_word_embeddings": tied,
        },
        image_seq_length=4,
        image_token_id=96,
        tie_word_embeddings=tied,
    )
    config._attn_implementation = "eager"
    model = transformers.InternVLForConditionalGeneration(config).eval().float()
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if name.endswith("norm.weight") or ("layernorm" in name and name.endswith("weight")):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() >= 2 and "embed" not in name.rsplit(".", 2)[-2]:
                parameter.copy_(noise * 1.5 / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.5 * noise)
    return model


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


def _original_config(model: Any) -> dict[str, Any]:
    """Returns the configuration as OpenGVLab writes it."""
    vision, text = model.config.vision_config, model.config.text_config
    return {
        "model_type": "internvl_chat",
        "template": "Hermes-2",
        "ps_version": "v2",
        "select_layer": -1,
        "force_image_size": 56,
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "max_dynamic_patch": 6,
        "use_thumbnail": True,
        "vision_config": {
            "model_type": "intern_vit_6b",
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "image_size": 56,
            "patch_size": 14,
            "num_channels": 3,
            "qkv_bias": vision.attention_bias,
            "qk_normalization": False,
            "norm_type": "layer_norm",
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
        },
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.max_position_embeddings,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": 1000000.0,
            "tie_word_embeddings": text.tie_word_embeddings,
            "use_sliding_window": False,
        },
    }


def write_original(model: Any, directory: Path, *, shards: int = 1, dtype: Any = torch.float32) -> Path:
    """Writes a whole checkpoint as OpenGVLab publishes it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(_original_config(model)))
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
