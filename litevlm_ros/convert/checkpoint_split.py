"""One downloaded InternVL checkpoint → the `vision_encoder/` and `text_decoder/` halves of a model directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from litevlm_ros.convert.checkpoint_keys import is_vision_key, lm_head_key
from litevlm_ros.convert.safetensors_files import SINGLE_FILE, SafetensorsDirectory
from litevlm_ros.errors import CheckpointError
from litevlm_ros.model_config import is_native, read_config
from litevlm_ros.model_directory import TEXT, VISION

_TEXT_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
_VISION_FILES = ("preprocessor_config.json", "processor_config.json")


def split_checkpoint(source: str | Path, model: str | Path, *, vision: bool = True, text: bool = True) -> None:
    """Write `vision_encoder/` and `text_decoder/` below `model` from the whole checkpoint in `source`.

    Both the OpenGVLab and the transformers naming are read; tensors keep their names and dtypes. The vision half gets
    the whole model's config.json, the text half the language model's own, with `tie_word_embeddings` set by whether
    the weights hold an output projection of their own. Raises CheckpointError if `source` is not such a checkpoint.
    """
    root, target = Path(source), Path(model)
    config = read_config(root / "config.json")
    language = config.get("text_config" if is_native(config) else "llm_config")
    if not isinstance(language, dict):
        raise CheckpointError(
            f"{root / 'config.json'} has no llm_config or text_config; it is not a whole InternVL model"
        )
    files = SafetensorsDirectory(root)
    vision_keys = {key for key in files.tensors if is_vision_key(key)}
    text_keys = files.tensors.keys() - vision_keys
    if not vision_keys or not text_keys:
        raise CheckpointError(f"{root} holds only {'text' if text_keys else 'vision'} weights; both halves are needed")
    if vision:
        _write_half(target / VISION, files, vision_keys, config, _VISION_FILES)
    if text:
        tied = lm_head_key(text_keys) is None
        _write_half(target / TEXT, files, text_keys, {**language, "tie_word_embeddings": tied}, _TEXT_FILES)


def _write_half(
    directory: Path, files: SafetensorsDirectory, keys: set[str], config: dict[str, Any], extras: tuple[str, ...]
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in extras:
        if (files.directory / name).is_file():
            shutil.copyfile(files.directory / name, directory / name)
    weights = directory / SINGLE_FILE
    partial = weights.with_suffix(".partial")  # an interrupted write must not look like a whole file
    save_file({key: files.load(key) for key in sorted(keys)}, partial, metadata={"format": "pt"})
    partial.replace(weights)
    (directory / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
