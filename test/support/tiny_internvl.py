"""A random InternVL of two thin layers: transformers' own class, and its weights as an exported model directory."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_files import made_once
from tiny_tokenizer import make_tokenizer, write_tokenizer

torch = pytest.importorskip("torch", reason="exports a model: pip install 'litevlm_ros[convert]'")
transformers = pytest.importorskip("transformers", reason="the reference model is transformers' InternVL")

from litevlm_ros.convert.checkpoint_split import split_checkpoint  # noqa: E402
from litevlm_ros.convert.export import export_text_decoder, export_vision_encoder  # noqa: E402
from litevlm_ros.prompt_families import INTERNVL2_5  # noqa: E402

IMAGE_TOKEN = "<IMG_CONTEXT>"
VOCAB_SIZE = 320
"""More than the tokenizer has, as in published checkpoints."""
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@functools.cache
def reference() -> Any:
    """Weights scaled so that images matter and answers do not repeat one token."""
    tokenizer = make_tokenizer()
    config = transformers.InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [56, 56],
            "patch_size": [14, 14],
            "attention_bias": True,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "vocab_size": VOCAB_SIZE,
            "max_position_embeddings": 1024,
            "rope_theta": 1e6,
        },
        image_seq_length=4,
        image_token_id=tokenizer.token_to_id(IMAGE_TOKEN),
        tie_word_embeddings=False,
    )
    model = transformers.InternVLForConditionalGeneration(config).eval().float()
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if parameter.dim() >= 2 and "embed" not in name:
                parameter.copy_(noise * 1.5 / parameter[0].numel() ** 0.5)
            elif name.endswith("norm.weight"):
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(0.5 * noise)
    return model


@functools.cache
def model_directory() -> Path:
    """The model with its graphs, made once for all workers of a test run. Not to be changed: copy it first."""
    return made_once("tiny_internvl", _write) / "model"


def checkpoint() -> Path:
    """The model as transformers saves it, without a tokenizer."""
    return made_once("tiny_internvl", _write) / "checkpoint"


def _write(root: Path) -> None:
    reference().save_pretrained(root / "checkpoint")
    config = root / "checkpoint" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"template": INTERNVL2_5}))
    model = root / "model"
    split_checkpoint(root / "checkpoint", model)
    write_tokenizer(make_tokenizer(), model / "text_decoder")
    export_vision_encoder(model, model)
    export_text_decoder(model, model)


def generate(prompt: list[int], tiles: Any, count: int) -> list[int]:
    """transformers' greedy answer of `count` tokens. `prompt` has the image token; `tiles` are uint8 [N, 56, 56, 3]."""
    with torch.no_grad():
        ids = reference().generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            pixel_values=_pixels(tiles) if len(tiles) else None,
            do_sample=False,
            min_new_tokens=count,
            max_new_tokens=count,
            eos_token_id=None,
            pad_token_id=0,
        )[0]
    return list(ids[len(prompt) :].tolist())


def generate_masked(prompt: list[int], tiles: Any, count: int, dropped: Any) -> list[int]:
    """As `generate`, with all tokens at their places but nothing that attends to the visual tokens `dropped`."""
    ids = torch.tensor([prompt])
    visible = torch.ones_like(ids)
    visual = (ids[0] == reference().config.image_token_id).nonzero().flatten()
    visible[0, visual[torch.as_tensor(dropped)]] = 0
    with torch.no_grad():
        for _ in range(count):
            positions = torch.arange(ids.shape[1]).unsqueeze(0)
            logits = reference()(
                input_ids=ids, pixel_values=_pixels(tiles), attention_mask=visible, position_ids=positions
            ).logits
            ids = torch.cat((ids, logits[:, -1:].argmax(-1)), 1)
            visible = torch.cat((visible, torch.ones_like(visible[:, :1])), 1)
    return list(ids[0, len(prompt) :].tolist())


def _pixels(tiles: Any) -> Any:
    pixels = (tiles / 255.0 - _MEAN) / _DEVIATION
    return torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2)
