"""transformers' own InternVL class with the weights of a model directory, for comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litevlm_ros.architectures import LANGUAGE_MODELS
from litevlm_ros.checkpoint.keys import text_sources, vision_sources
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.packages import pip_command


def load_transformers(model: str | Path, dtype: torch.dtype, device: str) -> Any:
    """Loads the model directory `model` as transformers' InternVLForConditionalGeneration, in eval mode on `device`.

    It has no image token: give it embeddings. Raises CheckpointError, also if transformers is not installed.
    """
    try:
        from transformers import AutoModelForImageTextToText
    except ImportError as error:
        raise CheckpointError(f"transformers is needed ({error}): `{pip_command('transformers')}`") from error
    config = ModelConfig.from_directory(model)
    with torch.device(device):
        # Not `.to(dtype)`, which would round the rotary frequencies.
        theirs = AutoModelForImageTextToText.from_config(internvl_config(config), dtype=dtype)
    target = theirs.state_dict()
    vision, text = vision_sources(target, config.vision), text_sources(target, config.text)
    if vision is None or text is None:
        raise CheckpointError("this version of transformers names InternVL's weights in a way that is not known here")
    sources, positions = vision
    with torch.no_grad():
        ours = dict(load_vision_encoder(model).named_parameters())
        target[positions.embedding].copy_(ours.pop("positions").reshape(target[positions.embedding].shape))
        target[positions.cls].zero_()  # `positions` has it already, and this bias too
        target[positions.patch_bias].zero_()
        _copy(ours, sources, target)
        _copy(dict(load_text_decoder(model).named_parameters()), text, target)
    return theirs.eval()


def _copy(ours: Mapping[str, Tensor], sources: dict[str, tuple[str, ...]], target: dict[str, Tensor]) -> None:
    for name, parameter in ours.items():
        keys = sources[name]
        for key, part in zip(keys, parameter.split([len(target[key]) for key in keys]), strict=True):
            target[key].copy_(part.reshape(target[key].shape))


def internvl_config(config: ModelConfig) -> Any:
    """Returns transformers' InternVLConfig of a model. Its image token has the id 0, which is for the caller to set."""
    from transformers import InternVLConfig

    vision, text = config.vision, config.text
    features = (text.qkv_bias, text.qk_norm)
    language = next(row for row in LANGUAGE_MODELS if (row.qkv_bias, row.qk_norm) == features)
    return InternVLConfig(
        vision_config={
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_layers,
            "num_attention_heads": vision.num_heads,
            "image_size": [vision.image_size, vision.image_size],
            "patch_size": [vision.patch_size, vision.patch_size],
            "layer_norm_eps": vision.layer_norm_eps,
            "attention_bias": vision.qkv_bias,
        },
        text_config={
            "model_type": language.model_type,
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_layers,
            "num_attention_heads": text.num_heads,
            "num_key_value_heads": text.num_kv_heads,
            "head_dim": text.head_dim,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_parameters": {"rope_type": "default", "rope_theta": text.rope_theta},
            "vocab_size": text.vocab_size,
            "max_position_embeddings": text.max_position_embeddings,
            "tie_word_embeddings": text.tie_word_embeddings,
        },
        downsample_ratio=vision.downsample_ratio,
        image_seq_length=vision.tokens_per_tile,
        image_token_id=0,
        tie_word_embeddings=text.tie_word_embeddings,
    )
