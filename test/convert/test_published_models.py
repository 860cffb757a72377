"""Each published model against transformers' class with random weights of its real shapes.

The whole checkpoint, in the layout of its repository, goes through `download_models --model PATH`. What comes out must
describe the entry's model and give transformers' logits for a picture and a question. By default each model has two
layers of its real widths and few words. LITEVLM_FULL_SIZE names models, such as 'internvl2-1b,internvl3_5-1b', to
compare at their full depth too, which takes up to 10 GB of memory and minutes for each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_checkpoints import random_model, write_native, write_original
from tiny_tokenizer import make_tokenizer, write_tokenizer

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.convert.checkpoint import load_text_decoder, load_vision_encoder
from litevlm_ros.convert.export import export_text_decoder, export_vision_encoder
from litevlm_ros.convert.packed_weights import pack
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import PARTS
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.prompt_families import INTERNVL_HF
from litevlm_ros.published_models import PUBLISHED_MODELS, PublishedModel
from litevlm_ros.text.prompt import TEMPLATES, ChatTemplate
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.tools import download_models
from litevlm_ros.types import View
from litevlm_ros.vision.tiling import IMAGENET_MEAN, IMAGENET_STD

FULL_SIZE = [name for name in os.environ.get("LITEVLM_FULL_SIZE", "").split(",") if name]
WORDS = make_tokenizer().get_vocab_size()
IMAGE_TOKEN = make_tokenizer().token_to_id("<IMG_CONTEXT>")
ANSWER = 16
TOLERANCE = 1e-3


def cut(model: ModelConfig) -> ModelConfig:
    """Returns two layers of a model, with few words."""
    return replace(
        model,
        vision=replace(model.vision, num_layers=2),
        text=replace(model.text, num_layers=2, vocab_size=WORDS),
    )


@cache
def reference(model: ModelConfig) -> Any:
    return random_model(model, IMAGE_TOKEN)


def install(entry: PublishedModel, model: ModelConfig, root: Path) -> Path:
    """Writes the checkpoint of `model` in the layout of the entry's repository, and installs it as a user would."""
    theirs = reference(replace(model, template=""))
    checkpoint = root / "checkpoint"
    if entry.model.template == INTERNVL_HF:
        write_native(theirs, checkpoint)
    else:
        write_original(theirs, checkpoint, template=model.template)
    write_tokenizer(make_tokenizer(), checkpoint)
    assert download_models.main(["--model", str(checkpoint), "--output", str(root / "model")]) == 0
    return root / "model"


def pixels_of(tile: Any) -> Any:
    """Returns a tile as transformers wants it: normalised, fp32 [1, 3, size, size]."""
    pixels = (tile / 255.0 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    return torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]


def logits_of(theirs: Any, tile: Any, before: list[int], after: list[int], tokens: int) -> Any:
    """Returns transformers' logits [S, V] for ids, a tile as visual tokens, and more ids."""
    ids = [*before, *[IMAGE_TOKEN] * tokens, *after]
    return theirs(
        input_ids=torch.tensor([ids]),
        pixel_values=pixels_of(tile),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        use_cache=False,
    ).logits[0]


def our_logits(model: Path, tile: Any, before: list[int], after: list[int]) -> Any:
    """Returns the logits of the torch modules that are exported."""
    visual = load_vision_encoder(model)(torch.from_numpy(tile)[None])[0]
    text = load_text_decoder(model)
    config = text.config
    ids = torch.tensor([*before, *range(config.vocab_size, config.vocab_size + len(visual)), *after])
    order = torch.arange(len(ids))
    empty = [torch.zeros(0, config.num_kv_heads, config.head_dim) for _ in range(config.num_layers)]
    return text(ids, order, torch.tensor([0]), order, visual, empty, empty)[0]


def picture() -> Any:
    rows, columns = np.indices((448, 448))
    waves = [127 + 127 * np.sin((rows + columns * (channel + 2)) / 40) for channel in range(3)]
    return np.stack(waves, -1).astype(np.uint8)


def compare(entry: PublishedModel, model: ModelConfig, root: Path) -> None:
    before, after = [5, 9, 100], [17, 20, 2, 31]
    installed = install(entry, model, root)
    found = ModelConfig.from_directory(installed)
    assert found == replace(model, max_dynamic_tiles=found.max_dynamic_tiles)
    expected = logits_of(reference(replace(model, template="")), picture(), before, after, entry.tokens_per_tile)
    logits = our_logits(installed, picture(), before, after)
    assert logits.shape == expected.shape
    assert expected[-4:].std() > 0.5, "degenerate logits compare nothing"
    assert float((logits - expected).abs().max() / expected.abs().max()) < TOLERANCE
    assert logits[-4:].argmax(-1).tolist() == expected[-4:].argmax(-1).tolist()


@pytest.fixture(scope="module", autouse=True)
def _small_memory() -> Iterator[None]:
    yield
    reference.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_the_real_widths_give_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    entry = PUBLISHED_MODELS[name]
    compare(entry, cut(entry.model), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["internvl2-1b", "internvl3_5-1b"])
def test_the_exported_graphs_answer_as_transformers_does(name: str, tmp_path: Path) -> None:
    """With the KV cache, token by token, and in the entry's prompt."""
    entry = PUBLISHED_MODELS[name]
    model = install(entry, cut(entry.model), tmp_path)
    export_vision_encoder(model, model)
    export_text_decoder(model, model)
    pipeline = Pipeline.from_config(PipelineConfig(model, max_context=1024))
    pipeline.stop_ids = frozenset()  # the weights are random: any token may come
    theirs = reference(replace(cut(entry.model), template=""))
    answers = set()
    for question in ("What is there?", "Is the car red?"):
        answer = pipeline.generate([View("front", picture())], question, SamplingConfig(max_new_tokens=ANSWER))
        assert answer.text == their_answer(theirs, TEMPLATES[entry.model.template], question, entry.tokens_per_tile)
        answers.add(answer.text)
    assert len(answers) == 2, "answers that do not depend on the question compare nothing"


def their_answer(theirs: Any, template: ChatTemplate, question: str, tokens: int) -> str:
    """Returns transformers' greedy answer of ANSWER tokens to a question about `picture`."""
    tokenizer = make_tokenizer()
    prompt = (
        f"<|im_start|>system\n{template.system_message}<|im_end|>{template.turn_separator}<|im_start|>user\n"
        f"<img>{'<IMG_CONTEXT>' * tokens}</img>\n{question}<|im_end|>{template.turn_separator}<|im_start|>assistant\n"
    )
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids])
    found = theirs.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=pixels_of(picture()),
        do_sample=False,
        min_new_tokens=ANSWER,
        max_new_tokens=ANSWER,
        eos_token_id=None,
        pad_token_id=0,
    )[0, ids.shape[1] :]
    return TextTokenizer(tokenizer).decode(found.tolist()).strip()


@pytest.mark.parametrize("precision", ["fp8", "int4"])
def test_packed_weights_are_as_large_as_foreseen(precision: str, tmp_path: Path) -> None:
    entry = PUBLISHED_MODELS["internvl3_5-1b"]
    model = install(entry, cut(entry.model), tmp_path)
    packed = sum(array.nbytes for part in PARTS for array in pack(part, model, precision, None).values())
    assert replace(entry, model=cut(entry.model)).weight_bytes(precision) == pytest.approx(packed, rel=0.01)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not FULL_SIZE, reason="set LITEVLM_FULL_SIZE=internvl2-1b,internvl3_5-1b to compare these")
@pytest.mark.parametrize("name", FULL_SIZE or ["none"])
def test_the_full_depth_gives_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    entry = PUBLISHED_MODELS[name]
    compare(entry, entry.model, tmp_path)
    reference.cache_clear()


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_the_number_of_parameters_is_that_of_transformers(name: str) -> None:
    from transformers import InternVLForConditionalGeneration

    from litevlm_ros.convert.transformers_model import internvl_config

    entry = PUBLISHED_MODELS[name]
    with torch.device("meta"):
        theirs = InternVLForConditionalGeneration(internvl_config(entry.model))
    assert entry.parameters == sum(parameter.numel() for parameter in theirs.parameters())
