from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.prompt_families import FAMILIES
from litevlm_ros.text.prompt import TEMPLATES

Json = dict[str, Any]


def qwen2() -> Json:
    """The language model of InternVL2-1B."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
        "vocab_size": 151655,
    }


def original() -> Json:
    return {
        "model_type": "internvl_chat",
        "template": "Hermes-2",
        "ps_version": "v2",
        "select_layer": -1,
        "force_image_size": 448,
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "max_dynamic_patch": 6,
        "use_thumbnail": True,
        "llm_config": qwen2(),
        "vision_config": {
            "hidden_act": "gelu",
            "hidden_size": 1024,
            "image_size": 448,
            "intermediate_size": 4096,
            "layer_norm_eps": 1e-06,
            "norm_type": "layer_norm",
            "num_attention_heads": 16,
            "num_channels": 3,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "qk_normalization": False,
            "qkv_bias": True,
        },
    }


def native() -> Json:
    text = qwen2() | {"vocab_size": 151674, "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"}}
    del text["rope_theta"]
    return {
        "model_type": "internvl",
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "text_config": text,
        "vision_config": {
            "attention_bias": True,
            "hidden_act": "gelu",
            "hidden_size": 1024,
            "image_size": [448, 448],
            "intermediate_size": 4096,
            "layer_norm_eps": 1e-06,
            "norm_type": "layer_norm",
            "num_attention_heads": 16,
            "num_hidden_layers": 24,
            "patch_size": [14, 14],
            "use_mean_pooling": True,
            "use_qk_norm": False,
        },
    }


def directory(path: Path, whole: Json, text: Json | None = None) -> Path:
    for name, config in (("vision_encoder", whole), ("text_decoder", text or whole.get("llm_config", qwen2()))):
        (path / name).mkdir()
        (path / name / "config.json").write_text(json.dumps(config))
    return path


VISION = VisionConfig(1024, 4096, 24, 16, 448, 14)
TEXT = TextConfig(896, 4864, 24, 14, 2, 64, 1e-6, 1e6, 151655, False, 32768)


def test_original(tmp_path: Path) -> None:
    config = ModelConfig.from_directory(directory(tmp_path, original()))
    assert config == ModelConfig(VISION, TEXT, "Hermes-2", use_thumbnail=True, max_dynamic_tiles=6)
    assert (config.vision.tokens_per_tile, config.vision.projector_size) == (256, 4096)


def test_native(tmp_path: Path) -> None:
    whole = native()
    config = ModelConfig.from_directory(directory(tmp_path, whole, whole["text_config"]))
    assert config.vision == VISION
    assert config.text.rope_theta == 1e6
    assert config.text.vocab_size == 151674
    assert (config.template, config.use_thumbnail, config.max_dynamic_tiles) == ("internvl-hf", True, 12)


def test_path_may_be_text(tmp_path: Path) -> None:
    assert ModelConfig.from_directory(str(directory(tmp_path, original()))).text == TEXT


def test_a_native_checkpoint_may_name_its_prompt_family(tmp_path: Path) -> None:
    """As the model that ships with the package does."""
    whole = native() | {"template": "litevlm-demo"}
    assert ModelConfig.from_directory(directory(tmp_path, whole, qwen2())).template == "litevlm-demo"


def test_every_known_template_has_a_prompt_family() -> None:
    assert set(FAMILIES) == set(TEMPLATES)


def test_one_tile_without_dynamic_image_size(tmp_path: Path) -> None:
    config = ModelConfig.from_directory(directory(tmp_path, original() | {"dynamic_image_size": False}))
    assert config.max_dynamic_tiles == 1


def test_dynamic_rope_scaling_equals_none_within_the_context(tmp_path: Path) -> None:
    text = qwen2() | {"rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}}
    assert ModelConfig.from_directory(directory(tmp_path, original(), text)).text == TEXT


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ps_version": "v1"}, ("ps_version", "v1", "v2")),
        ({"select_layer": -2}, ("select_layer", "-2", "-1")),
        ({"force_image_size": 224}, ("force_image_size", "224", "448", "interpolated")),
        ({"template": None}, ("template", "Hermes-2")),
        ({"template": 3}, ("template", "3")),
        ({"downsample_ratio": 0.3}, ("downsample_ratio", "0.3")),
        ({"downsample_ratio": "half"}, ("downsample_ratio", "half", "number")),
        ({"max_dynamic_patch": 0}, ("max_dynamic_tiles", "0")),
        ({"vision_config": None}, ("vision_config",)),
        ({"llm_config": {"hidden_size": 1536}}, ("1536", "896", "same InternVL")),
    ],
)
def test_unsupported_whole_model(changes: Json, words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_directory(directory(tmp_path, original() | changes, qwen2()))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"qk_normalization": True}, ("qk_normalization", "True")),
        ({"norm_type": "rms_norm"}, ("norm_type", "rms_norm", "layer_norm")),
        ({"norm_type": None}, ("norm_type", "rms_norm")),
        ({"hidden_act": "relu"}, ("hidden_act", "relu")),
        ({"num_channels": 1}, ("num_channels", "1")),
        ({"image_size": [448, 224]}, ("image_size", "224", "square")),
        ({"hidden_size": None}, ("vision_config.hidden_size", "None")),
        ({"hidden_size": 1000}, ("hidden_size", "1000", "num_heads")),
        ({"patch_size": 13}, ("image_size", "patch_size")),
        ({"patch_size": 64}, ("downsample_ratio",)),
        ({"num_hidden_layers": -1}, ("num_layers", "-1")),
    ],
)
def test_unsupported_vision(changes: Json, words: tuple[str, ...], tmp_path: Path) -> None:
    whole = original()
    whole["vision_config"] |= changes
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_directory(directory(tmp_path, whole, qwen2()))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_qk_norm": True}, ("use_qk_norm",)),
        ({"use_mean_pooling": False}, ("use_mean_pooling",)),
        ({"use_absolute_position_embeddings": False}, ("use_absolute_position_embeddings",)),
    ],
)
def test_unsupported_native_vision(changes: Json, words: tuple[str, ...], tmp_path: Path) -> None:
    whole = native()
    whole["vision_config"] |= changes
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_directory(directory(tmp_path, whole, qwen2()))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, ("llama", "LlamaForCausalLM", "internvl3-2b")),
        ({"use_sliding_window": True}, ("use_sliding_window",)),
        ({"layer_types": ["full_attention", "sliding_attention"]}, ("layer_types",)),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, ("rope_scaling", "yarn")),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ("rope_scaling", "linear")),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e6}}, ("rope_parameters", "llama3")),
        ({"hidden_act": "gelu"}, ("hidden_act", "gelu")),
        ({"num_key_value_heads": 3}, ("num_key_value_heads", "3")),
        ({"head_dim": 63}, ("head_dim", "63")),
        ({"vocab_size": "many"}, ("vocab_size", "many")),
        ({"rms_norm_eps": True}, ("rms_norm_eps",)),
        ({"num_attention_heads": 0}, ("num_heads", "0")),
        ({"rope_theta": -1.0}, ("rope_theta",)),
    ],
)
def test_unsupported_text(changes: Json, words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_directory(directory(tmp_path, original(), qwen2() | changes))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("half", ["vision_encoder", "text_decoder"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_missing_or_damaged_file(half: str, content: bytes | None, tmp_path: Path) -> None:
    file = directory(tmp_path, original()) / half / "config.json"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(file)):
        ModelConfig.from_directory(tmp_path)
