from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from litevlm_ros.convert.checkpoint_split import check_architecture, split_checkpoint
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import ModelConfig


@pytest.mark.parametrize("name", ["original", "original-sharded", "native"])
def test_every_tensor_goes_to_one_half_unchanged(name: str, checkpoints: Any, tmp_path: Path) -> None:
    split_checkpoint(checkpoints[name], tmp_path)
    whole: dict[str, Any] = {}
    for file in checkpoints[name].glob("*.safetensors"):
        whole |= load_file(file)
    vision = load_file(tmp_path / "vision_encoder" / "model.safetensors")
    text = load_file(tmp_path / "text_decoder" / "model.safetensors")
    assert vision.keys().isdisjoint(text)
    assert (vision | text).keys() == whole.keys()
    assert all(tensor.equal(whole[key]) for key, tensor in (vision | text).items())
    assert all("language_model" in key or "lm_head" in key for key in text)
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.parametrize(("name", "tied"), [("original", False), ("original-tied", True), ("native-tied", True)])
def test_configs(name: str, tied: bool, checkpoints: Any, tmp_path: Path) -> None:
    split_checkpoint(checkpoints[name], tmp_path)
    config = ModelConfig.from_directory(tmp_path)
    assert (config.vision.hidden_size, config.vision.tokens_per_tile, config.text.vocab_size) == (32, 4, 97)
    assert config.text.tie_word_embeddings is tied
    assert config.text.rope_theta == 1e6


def test_tying_goes_by_the_weights_not_by_the_config(checkpoints: Any, tmp_path: Path) -> None:
    """In transformers' files the whole model's setting overrules the language model's own, which may say otherwise."""
    whole = tmp_path / "whole"
    shutil.copytree(checkpoints["native-tied"], whole)
    config = json.loads((whole / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = False
    (whole / "config.json").write_text(json.dumps(config))
    split_checkpoint(whole, tmp_path / "model")
    assert ModelConfig.from_directory(tmp_path / "model").text.tie_word_embeddings


def test_tokenizer_files_go_with_the_text(checkpoints: Any, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(checkpoints["original"], whole)
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json"):
        (whole / file).write_text(f'"{file}"')
    split_checkpoint(whole, tmp_path / "model")
    assert (tmp_path / "model" / "text_decoder" / "tokenizer.json").read_text() == '"tokenizer.json"'
    assert (tmp_path / "model" / "text_decoder" / "generation_config.json").exists()
    assert (tmp_path / "model" / "vision_encoder" / "preprocessor_config.json").exists()
    assert not (tmp_path / "model" / "vision_encoder" / "tokenizer.json").exists()


def test_one_half_alone(checkpoints: Any, tmp_path: Path) -> None:
    split_checkpoint(checkpoints["original"], tmp_path, text=False)
    assert [path.name for path in tmp_path.iterdir()] == ["vision_encoder"]


def test_a_stock_language_model_is_not_a_whole_checkpoint(models: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model_type is 'qwen2'.*a language model without a vision encoder"):
        split_checkpoint(models["original"] / "text_decoder", tmp_path)


def test_an_adapter_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match=r"LoRA adapter.*merge_and_unload"):
        check_architecture(tmp_path)


def test_the_architecture_is_checked_by_the_configuration_alone(checkpoints: Any, tmp_path: Path) -> None:
    for name in ("original", "native", "original-qwen3", "native-qwen3"):
        (tmp_path / name).mkdir()
        shutil.copy(checkpoints[name] / "config.json", tmp_path / name)
        check_architecture(tmp_path / name)


def test_a_checkpoint_of_one_half_is_refused(models: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="only vision weights"):
        split_checkpoint(models["original"] / "vision_encoder", tmp_path)
