"""Configurations as people have them: each is taken, or refused with what it is and what to take instead."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from litevlm_ros.architectures import LANGUAGE_MODELS, check_whole_model, language_model
from litevlm_ros.config_json import ConfigSection
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import ModelConfig

Json = dict[str, Any]
FILE = Path("checkpoint/config.json")

QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 896,
    "intermediate_size": 4864, "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "vocab_size": 151674, "max_position_embeddings": 32768,
    "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}, "use_sliding_window": False,
}  # fmt: skip
QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu", "hidden_size": 1024,
    "head_dim": 128, "intermediate_size": 3072, "num_attention_heads": 16, "num_hidden_layers": 28,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_theta": 1000000, "rope_scaling": None, "vocab_size": 151936,
    "max_position_embeddings": 40960, "max_window_layers": 28, "sliding_window": None, "use_sliding_window": False,
    "attention_bias": False, "layer_types": ["full_attention"] * 28,
}  # fmt: skip
INTERN_VIT = {
    "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "hidden_act": "gelu", "hidden_size": 1024,
    "image_size": 448, "intermediate_size": 4096, "norm_type": "layer_norm", "num_attention_heads": 16,
    "num_channels": 3, "num_hidden_layers": 24, "patch_size": 14, "qk_normalization": False, "qkv_bias": True,
}  # fmt: skip
INTERN_VIT_6B = INTERN_VIT | {
    "hidden_size": 3200, "intermediate_size": 12800, "num_attention_heads": 25, "num_hidden_layers": 45,
    "norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False,
}  # fmt: skip
INTERNVL = {
    "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "template": "internvl2_5",
    "ps_version": "v2", "select_layer": -1, "force_image_size": 448, "downsample_ratio": 0.5,
    "dynamic_image_size": True, "max_dynamic_patch": 12, "use_thumbnail": True, "use_backbone_lora": 0,
    "use_llm_lora": 0, "llm_config": QWEN2, "vision_config": INTERN_VIT,
}  # fmt: skip
NATIVE = {
    "architectures": ["InternVLForConditionalGeneration"], "model_type": "internvl", "downsample_ratio": 0.5,
    "image_seq_length": 256, "image_token_id": 151671, "projector_hidden_act": "gelu", "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default", "text_config": QWEN3,
    "vision_config": {
        "architectures": ["InternVLVisionModel"], "model_type": "internvl_vision", "attention_bias": True,
        "hidden_act": "gelu", "hidden_size": 1024, "image_size": [448, 448], "intermediate_size": 4096,
        "norm_type": "layer_norm", "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": [14, 14],
        "use_absolute_position_embeddings": True, "use_mean_pooling": True, "use_qk_norm": False,
    },
}  # fmt: skip


def read(whole: Json) -> ModelConfig:
    key = "text_config" if "text_config" in whole else "llm_config"
    check_whole_model(ConfigSection(whole, FILE))
    return ModelConfig.from_sections(ConfigSection(whole, FILE), ConfigSection(whole[key], FILE, f"{key}."))


def refusal(whole: Json) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(deepcopy(whole))
    return str(caught.value)


def text(name: str, architecture: str, **changes: Any) -> Json:
    return {"llm_config": QWEN2 | {"model_type": name, "architectures": [architecture], **changes}}


@pytest.mark.parametrize(
    ("whole", "template", "features"),
    [
        (INTERNVL, "internvl2_5", (True, False, 64)),
        (INTERNVL | {"template": "Hermes-2"}, "Hermes-2", (True, False, 64)),
        (INTERNVL | {"template": "internlm2-chat"}, "Hermes-2", (True, False, 64)),
        (INTERNVL | {"llm_config": QWEN3}, "internvl2_5", (False, True, 128)),
        (INTERNVL | {"llm_config": QWEN3 | {"head_dim": None}}, "internvl2_5", (False, True, 128)),
        (INTERNVL | {"flash_mode": None, "quantization_config": None}, "internvl2_5", (True, False, 64)),
        (NATIVE, "internvl-hf", (False, True, 128)),
        (NATIVE | {"text_config": QWEN2}, "internvl-hf", (True, False, 64)),
        (NATIVE | {"architectures": None}, "internvl-hf", (False, True, 128)),
    ],
)
def test_models_that_are_run(whole: Json, template: str, features: tuple[bool, bool, int]) -> None:
    config = read(whole)
    assert config.template == template
    assert (config.text.qkv_bias, config.text.qk_norm, config.text.head_dim) == features


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (text("internlm2", "InternLM2ForCausalLM"), ("InternLM2ForCausalLM", "InternVL2-2B", "internvl3-2b")),
        (text("llama", "LlamaForCausalLM"), ("'llama'", "InternVL2-40B", "internvl3-2b")),
        (text("phi3", "Phi3ForCausalLM"), ("'phi3'", "InternVL2-4B", "internvl3_5-2b")),
        (text("qwen2_moe", "Qwen2MoeForCausalLM"), ("mixture of experts",)),
        (text("qwen3_moe", "Qwen3MoeForCausalLM"), ("mixture of experts", "InternVL3_5-30B-A3B", "internvl3_5-2b")),
        (text("gpt_oss", "GptOssForCausalLM"), ("GPT-OSS", "internvl3_5-2b")),
        (text("mamba", "MambaForCausalLM"), ("'mamba'", "qwen2 and qwen3", "internvl3-1b")),
        ({"llm_config": QWEN3 | {"attention_bias": True}}, ("llm_config.attention_bias", "False")),
        ({"vision_config": INTERN_VIT_6B}, ("qk_normalization", "InternViT-6B", "26B", "internvl3-2b")),
        ({"use_llm_lora": 128}, ("use_llm_lora is 128", "tools/merge_lora.py", "--model MERGED")),
        ({"use_backbone_lora": 16}, ("use_backbone_lora is 16", "tools/merge_lora.py")),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, ("by awq", "-AWQ", "build_engines --fp8")),
        ({"quantization_config": {"quant_method": "gptq"}}, ("by gptq", "16 bits")),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, ("by bitsandbytes",)),
        ({"quantization": {"group_size": 64, "bits": 4}}, ("quantization says", "-4bit")),
        ({"llm_config": QWEN2 | {"quantization_config": {"quant_method": "awq"}}}, ("llm_config.quantization_config",)),
        ({"flash_mode": True, "flash_relative_threshold": 0.9}, ("Flash", "router", "without -Flash")),
        ({"flash_relative_threshold": 0.9}, ("Flash",)),
        ({"template": "phi3-chat"}, ("phi3-chat", "Hermes-2", "internlm2-chat", "internvl2_5")),
        ({"template": "internlm2-chat-v3"}, ("internlm2-chat-v3", "internvl-hf")),
        ({"template": None}, ("template is missing", "Hermes-2", "3.5")),
        ({"architectures": ["InternVLChatModelWithTwoEncoders"]}, ("InternVLChatModelWithTwoEncoders", "no InternVL")),
        ({"ps_version": "v1"}, ("ps_version",)),
    ],
)
def test_variants_of_internvl_that_are_not_run(changes: Json, words: tuple[str, ...]) -> None:
    message = refusal(INTERNVL | changes)
    assert message.startswith(f"{FILE}: ")
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "internvl_flash", "architectures": ["InternVLFlashForConditionalGeneration"]}, ("Flash",)),
        ({"text_config": QWEN3 | {"model_type": "qwen3_moe"}}, ("text_config.model_type is 'qwen3_moe'", "experts")),
        ({"vision_config": NATIVE["vision_config"] | {"use_qk_norm": True}}, ("use_qk_norm", "InternViT-6B")),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, ("by compressed-tensors",)),
    ],
)
def test_variants_in_the_spelling_of_transformers(changes: Json, words: tuple[str, ...]) -> None:
    message = refusal(NATIVE | changes)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("kind", "architecture", "words"),
    [
        ("llava_onevision", "LlavaOnevisionForConditionalGeneration", ("LLaVA-OneVision", "SigLIP", "internvl3-1b")),
        ("llava_qwen", "LlavaQwenForCausalLM", ("LLaVA", "internvl3-1b")),
        ("llava", "LlavaForConditionalGeneration", ("LLaVA", "CLIP")),
        ("qwen2_vl", "Qwen2VLForConditionalGeneration", ("Qwen2-VL", "internvl3-2b")),
        ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", ("Qwen2.5-VL", "internvl3-2b")),
        ("qwen3_vl", "Qwen3VLForConditionalGeneration", ("Qwen3-VL", "internvl3_5-2b")),
        ("smolvlm", "SmolVLMForConditionalGeneration", ("SmolVLM", "internvl3-1b")),
        ("paligemma", "PaliGemmaForConditionalGeneration", ("PaliGemma",)),
        ("mllama", "MllamaForConditionalGeneration", ("'mllama'", "MllamaForConditionalGeneration", "no InternVL")),
        ("whisper", "WhisperForConditionalGeneration", ("'whisper'", "no InternVL", "internvl3-1b")),
    ],
)
@pytest.mark.parametrize("halves", [{"text_config": QWEN2, "vision_config": {}}, {}], ids=["halves", "flat"])
def test_other_vision_language_models(kind: str, architecture: str, words: tuple[str, ...], halves: Json) -> None:
    message = refusal({"model_type": kind, "architectures": [architecture], "hidden_size": 896} | halves)
    assert f"model_type is {kind!r} ({architecture})" in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (QWEN2, ("'qwen2'", "without a vision encoder", "a whole one", "internvl3-1b")),
        (QWEN3, ("'qwen3'", "without a vision encoder")),
        (QWEN2 | {"architectures": None}, ("'qwen2'", "without a vision encoder")),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, ("GPT2LMHeadModel", "without a vision encoder")),
        (INTERN_VIT, ("intern_vit_6b", "vision encoder alone", "internvl3-1b")),
        ({"architectures": ["InternVisionModel"]}, ("InternVisionModel", "vision encoder alone")),
    ],
)
def test_half_a_model(config: Json, words: tuple[str, ...]) -> None:
    message = refusal(config)
    assert all(word in message for word in words), message


def test_a_whole_model_in_place_of_its_language_model() -> None:
    with pytest.raises(CheckpointError, match=r"a whole InternVL.*download_models --model CHECKPOINT"):
        language_model(ConfigSection(INTERNVL, FILE))


@pytest.mark.parametrize("value", [7, ["internvl_chat"], {"a": 1}])
def test_a_model_type_that_is_no_text_is_none(value: Any) -> None:
    check_whole_model(ConfigSection({"model_type": value}, FILE))
    assert "None" in refusal({"model_type": value, "llm_config": {"model_type": value}})


def test_a_language_model_is_found_by_its_class_if_no_type_is_named() -> None:
    for row in LANGUAGE_MODELS:
        assert language_model(ConfigSection({"architectures": [row.architecture]}, FILE)) is row
        assert language_model(ConfigSection({"model_type": row.model_type}, FILE)) is row
