"""Each published text decoder, from its checkpoint to an answer by engines, on a fake GPU.

They have the real widths, but two layers, small tiles and few words. Blocks compute decode steps, since the decode
kernel on a host would take minutes: test_decode_kernel.py has small models of both architectures for it.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from backends import read
from fake_cuda import FakeCuda

pytest.importorskip("transformers", reason="it writes the checkpoints: pip install 'litevlm_ros[convert]'")

from published_checkpoints import random_model, write_original
from random_internvl import thinned
from tiny_tokenizer import make_tokenizer, write_tokenizer

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.convert.export import export_text_decoder, export_vision_encoder
from litevlm_ros.model_config import TextConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.published_models import PUBLISHED_MODELS
from litevlm_ros.runtime.tensorrt.attention_reference import relative_error
from litevlm_ros.tools import download_models
from litevlm_ros.types import Answer, View

pytestmark = pytest.mark.slow


TEXT_TOLERANCE = 1e-2
"""The largest relative error of fp16 engines' logits against graphs in fp32."""


def _different() -> list[str]:
    """Returns the names of entries of which no other has the same decoder."""
    seen: dict[TextConfig, str] = {}
    for name, entry in PUBLISHED_MODELS.items():
        seen.setdefault(replace(entry.model.text, vocab_size=1), name)
    return list(seen.values())


def logits_and_answer(model: Path, backend: str) -> tuple[Any, Answer]:
    """Returns the logits of words around a tile's visual tokens and of words read one by one, and an answer."""
    config = PipelineConfig(model, backend=backend, max_context=300, decode="engine")
    rows, columns = np.indices((56, 56))
    tile = np.stack([4 * rows, 4 * columns, 2 * (rows + columns)], -1).astype(np.uint8)
    with contextlib.closing(Pipeline.from_config(config)) as pipeline:
        pipeline.stop_ids = frozenset()  # the weights are random: any token may come
        answer = pipeline.generate([View("front", tile)], "What is there?", SamplingConfig(4))
        visual, words = pipeline.backend.vision.encode(tile[None]), pipeline.model.text.vocab_size
        pipeline.backend.text.cache.truncate(0)
        ids = [5, 9, 100, *range(words, words + visual.count), 17, 20, 2]
        found = [read(pipeline.backend, ids, 2, visual)[1]]
        found += [read(pipeline.backend, [word])[1] for word in (31, 8, 77)]
    return np.concatenate(found), answer


@pytest.mark.parametrize("name", _different())
def test_engines_compute_what_graphs_do(name: str, cuda: FakeCuda, tmp_path: Path) -> None:
    entry = PUBLISHED_MODELS[name]
    model = thinned(entry.model)
    model = replace(model, text=replace(model.text, vocab_size=make_tokenizer().get_vocab_size()))
    theirs = random_model(replace(model, template=""), make_tokenizer().token_to_id("<IMG_CONTEXT>"))
    checkpoint, installed = tmp_path / "checkpoint", tmp_path / "model"
    write_original(theirs, checkpoint, template=model.template)
    write_tokenizer(make_tokenizer(), checkpoint)
    assert download_models.main(["--model", str(checkpoint), "--output", str(installed)]) == 0
    export_vision_encoder(installed, installed, check=False)
    export_text_decoder(installed, installed, check=False)
    fake_tensorrt.write_engines(installed, installed)
    (expected, _), (found, answer) = (logits_and_answer(installed, each) for each in ("onnxruntime", "tensorrt"))
    assert expected.std(-1).min() > 0.5, "degenerate logits compare nothing"
    assert relative_error(found, expected) < TEXT_TOLERANCE
    assert answer.tokens.generated == 4
