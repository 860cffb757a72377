"""Split of one InternVL checkpoint into `vision_encoder/` and `text_decoder/`, the two parts of a model directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from litevlm_ros.architectures import check_whole_model
from litevlm_ros.checkpoint.files import SafetensorsDirectory
from litevlm_ros.checkpoint.keys import is_vision_key, lm_head_key
from litevlm_ros.config_json import ConfigSection, read_config
from litevlm_ros.convert.checkpoint import load_tensor
from litevlm_ros.errors import CheckpointError
from litevlm_ros.files import replacing
from litevlm_ros.model_config import ModelConfig, is_native
from litevlm_ros.model_directory import TEXT, TEXT_FILES, VISION, VISION_FILES, WEIGHTS

_ADAPTER = "adapter_config.json"


def check_architecture(checkpoint: Path) -> ModelConfig:
    """Returns what a checkpoint's config.json describes. Raises CheckpointError if this package cannot run it."""
    file = checkpoint / "config.json"
    if (checkpoint / _ADAPTER).is_file() and not file.is_file():
        raise CheckpointError(
            f"{checkpoint} holds a LoRA adapter ({_ADAPTER}), not a model. Merge it into its base model, with peft's "
            "merge_and_unload, save the result with save_pretrained, and give --model that directory"
        )
    whole, language = _read_configs(file)
    prefix = "text_config." if is_native(whole) else "llm_config."
    return ModelConfig.from_sections(ConfigSection(whole, file), ConfigSection(language, file, prefix))


def split_checkpoint(checkpoint: Path, model: Path, *, vision: bool = True, text: bool = True) -> None:
    """Writes `vision_encoder/` and `text_decoder/` below `model` from the whole checkpoint in a directory.

    Both the OpenGVLab and the transformers naming are read; tensors keep their names and dtypes. The vision encoder
    gets the whole model's config.json, the text decoder the language model's own, with `tie_word_embeddings` set by
    whether the weights hold an output projection of their own. Raises CheckpointError for another kind of checkpoint,
    OSError, and safetensors' SafetensorError if the disk is full.
    """
    config, language = _read_configs(checkpoint / "config.json")
    files = SafetensorsDirectory(checkpoint)
    vision_keys = {key for key in files.tensors if is_vision_key(key)}
    text_keys = files.tensors.keys() - vision_keys
    if not vision_keys or not text_keys:
        present = "text" if text_keys else "vision"
        raise CheckpointError(f"{checkpoint} holds only {present} weights; both halves are needed")
    if vision:
        _write_part(model / VISION, files, vision_keys, config, VISION_FILES)
    if text:
        tied = lm_head_key(text_keys) is None
        _write_part(model / TEXT, files, text_keys, {**language, "tie_word_embeddings": tied}, TEXT_FILES)


def _read_configs(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the configurations of the whole model and of its language model. Raises CheckpointError."""
    whole = read_config(file)
    check_whole_model(ConfigSection(whole, file))
    language = whole.get("text_config" if is_native(whole) else "llm_config")
    if not isinstance(language, dict):
        raise CheckpointError(f"{file} has no llm_config or text_config; it is not a whole InternVL model")
    return whole, language


def _write_part(
    directory: Path, files: SafetensorsDirectory, keys: set[str], config: dict[str, Any], extras: tuple[str, ...]
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in extras:
        if (files.directory / name).is_file():
            shutil.copyfile(files.directory / name, directory / name)
    with replacing(directory / WEIGHTS) as unfinished:
        save_file({key: load_tensor(files, key) for key in sorted(keys)}, unfinished, metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
