"""The demo model's tokenizer: byte-level BPE as Qwen2 uses it, trained on captions and questions of the demo world."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.world.captions import caption
from litevlm_ros.lab.world.questions import draw_caption_prompt, draw_questions
from litevlm_ros.lab.world.scene import generate, spoken

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
_VOCABULARY_SIZE = 640
_SCENES = 1500


def train_tokenizer() -> Tokenizer:
    """Trains on captions and questions of the first training scenes. Any other text falls back to bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and generation_config.json as a downloaded checkpoint has them."""
    tokenizer.save(str(directory / "tokenizer.json"))
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    config = {"tokenizer_class": "Qwen2TokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    generation = {"eos_token_id": [end, pad], "pad_token_id": pad, "do_sample": False}
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def _texts() -> Iterator[str]:
    rng = np.random.default_rng(0)
    yield "user\n"
    yield "assistant\n"
    for seed in range(_SCENES):
        scene = generate(seed)
        camera = DEMO_CAMERAS[seed % len(DEMO_CAMERAS)]
        yield f"{spoken(camera)}: "
        yield caption(scene, camera)
        for cameras in ((camera,), DEMO_CAMERAS):
            yield draw_caption_prompt(camera, cameras, rng)
            for question in draw_questions(scene, cameras, 10, rng):
                yield question.text
                yield question.text.lower()
                yield question.answer
