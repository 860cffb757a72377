"""An InternVL of real size with random weights, as a model directory: `python random_internvl.py DIR --size 1b`.

Scaled so that it behaves like a trained model where that matters for comparisons: activations stay within fp16, what is
rounded early is not blown up later, every layer and every image changes the answer, and answers do not repeat a token.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from tiny_tokenizer import make_tokenizer, write_tokenizer

_VISION_1B = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
              "image_size": [448, 448], "patch_size": [14, 14], "attention_bias": True}  # fmt: skip
_TEXT_1B = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
            "num_key_value_heads": 2, "vocab_size": 151655, "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "tie_word_embeddings": True}  # fmt: skip
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "1b": (_VISION_1B, _TEXT_1B),
    "thin": (
        {**_VISION_1B, "num_hidden_layers": 2, "image_size": [56, 56]},
        {**_TEXT_1B, "num_hidden_layers": 2, "vocab_size": 1000},
    ),
}
"""InternVL2-1B, and two layers of it with small tiles and few words."""


def write_random_internvl(directory: Path, size: str = "1b", device: str = "cpu") -> None:
    """Writes `vision_encoder/` and `text_decoder/` with fp16 weights. The same on every run on the same device."""
    import torch
    from transformers import AutoModelForImageTextToText, InternVLConfig

    from litevlm_ros.convert.checkpoint_split import split_checkpoint

    vision, text = SIZES[size]
    side = vision["image_size"][0] // vision["patch_size"][0] // 2
    config = InternVLConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **text},
        image_seq_length=side**2,
        image_token_id=make_tokenizer().token_to_id("<IMG_CONTEXT>"),
        tie_word_embeddings=True,
    )
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float16)
    random = torch.Generator(device).manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random, device=device)
            if "lambda" in name:
                parameter.fill_(0.1)
            elif name.endswith("embed_tokens.weight"):
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
    checkpoint = directory / "checkpoint"
    model.save_pretrained(checkpoint)
    del model
    split_checkpoint(checkpoint, directory)
    shutil.rmtree(checkpoint)
    write_tokenizer(make_tokenizer(), directory / "text_decoder")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    write_random_internvl(options.directory, options.size, options.device)
