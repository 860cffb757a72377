"""A published model with random weights, as a model directory: `python random_internvl.py DIR --model internvl3_5-1b`.

Scaled so that it behaves like a trained model where that matters for comparisons: activations stay within fp16, what is
rounded early is not blown up later, every layer and every image changes the answer, and answers do not repeat a token.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

from tiny_tokenizer import make_tokenizer, write_tokenizer

from litevlm_ros.model_config import ModelConfig
from litevlm_ros.published_models import DEFAULT_MODEL, PUBLISHED_MODELS


def thinned(model: ModelConfig) -> ModelConfig:
    """Returns two layers of a model with small tiles and few words, and with one table for embedding and head."""
    return replace(
        model,
        vision=replace(model.vision, num_layers=2, image_size=56),
        text=replace(model.text, num_layers=2, vocab_size=1000, tie_word_embeddings=True),
    )


def write_random_internvl(directory: Path, model: ModelConfig, device: str = "cpu") -> None:
    """Writes `vision_encoder/` and `text_decoder/` with fp16 weights. The same on every run on the same device."""
    from litevlm_ros.convert.checkpoint_split import split_checkpoint

    checkpoint = directory / "checkpoint"
    write_random_checkpoint(checkpoint, model, device)
    split_checkpoint(checkpoint, directory)
    shutil.rmtree(checkpoint)


def write_random_checkpoint(checkpoint: Path, model: ModelConfig, device: str = "cpu") -> None:
    """Writes the checkpoint of such a model in transformers' layout, with a small tokenizer."""
    import torch
    from transformers import AutoModelForImageTextToText

    from litevlm_ros.convert.transformers_model import internvl_config

    config = internvl_config(model)
    config.image_token_id = make_tokenizer().token_to_id("<IMG_CONTEXT>")
    with torch.device(device):
        theirs = AutoModelForImageTextToText.from_config(config, dtype=torch.float16)
    random = torch.Generator(device).manual_seed(11)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            noise = torch.randn(parameter.shape, generator=random, device=device)
            if "lambda" in name:
                parameter.fill_(0.1)
            elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
                parameter.copy_(0.1 * noise)  # small, or with tied weights a token would be its own successor
            elif name.endswith("o_proj.weight") and "language_model" in name:
                # Little attention, or the mean of a long prompt would choose the same token again and again.
                parameter.copy_(0.3 * noise / parameter[0].numel() ** 0.5)
            elif parameter.dim() >= 2 and "embeddings" not in name:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(0.1 * noise)
    theirs.save_pretrained(checkpoint)
    described = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(described | {"template": model.template}))
    write_tokenizer(make_tokenizer(), checkpoint)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", choices=PUBLISHED_MODELS, default=DEFAULT_MODEL)
    parser.add_argument("--tied", action="store_true", help="one table for embedding and head")
    parser.add_argument("--thin", action="store_true", help="two layers, with small tiles and few words")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    chosen = PUBLISHED_MODELS[options.model].model
    if options.tied:
        chosen = replace(chosen, text=replace(chosen.text, tie_word_embeddings=True))
    write_random_internvl(options.directory, thinned(chosen) if options.thin else chosen, options.device)
