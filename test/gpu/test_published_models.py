"""Engines with the real widths of published text decoders compute what transformers does, from the checkpoint on.

LITEVLM_FULL_SIZE names models, such as 'internvl3_5-1b,internvl3-2b-hf', to examine with all of their layers too.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu_bench import build, say
from random_internvl import write_random_checkpoint

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.lab.benchmarking.accuracy import judge, observe
from litevlm_ros.lab.benchmarking.exact_stages import sample_views
from litevlm_ros.lab.benchmarking.gpu_access import Gpu
from litevlm_ros.model_config import ModelConfig, TextConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.published_models import DEFAULT_MODEL, PUBLISHED_MODELS
from litevlm_ros.tools import download_models

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

LAYERS = 3


def _shortened(model: ModelConfig) -> ModelConfig:
    return replace(
        model,
        vision=replace(model.vision, num_layers=LAYERS),
        text=replace(model.text, num_layers=LAYERS),
    )


def _models() -> dict[str, ModelConfig]:
    """The published models of which no other has the same decoder: name → a few layers of it.

    All have one vision encoder. That of DEFAULT_MODEL is tested in its whole depth by test_full_size.py.
    """
    seen: dict[TextConfig, str] = {}
    for name, entry in PUBLISHED_MODELS.items():
        seen.setdefault(replace(entry.model.text, vocab_size=1), name)
    return {name: _shortened(PUBLISHED_MODELS[name].model) for name in seen.values() if name != DEFAULT_MODEL}


FULL_SIZE = [name for name in os.environ.get("LITEVLM_FULL_SIZE", "").split(",") if name]
MODELS = {**_models(), **{f"{name}, all layers": PUBLISHED_MODELS[name].model for name in FULL_SIZE}}


@pytest.mark.parametrize("name", MODELS)
def test_engines_compute_what_transformers_does(name: str, gpu: Gpu, tmp_path: Path, transformers_import: Any) -> None:
    transformers_import.result()
    checkpoint, directory = tmp_path / "checkpoint", tmp_path / name
    write_random_checkpoint(checkpoint, MODELS[name], "cuda")
    assert download_models.main(["--model", str(checkpoint), "--output", str(directory)]) == 0
    build(directory, "--max-tiles", "6", "--max-context", "2048")
    config = PipelineConfig(directory, backend="tensorrt", decode="kernels")
    with contextlib.closing(Pipeline.from_config(config)) as pipeline:
        say(pipeline.backend.description)
        seen = observe(pipeline.backend, MODELS[name], gpu)
        pipeline.stop_ids = frozenset()  # the weights are random: any token may come
        answer = pipeline.generate(sample_views(1), "What is there?", SamplingConfig(max_new_tokens=8))
    assert answer.tokens.generated == 8
    found = judge(seen, directory)
    say(f"{name}: {found}")
    assert max(found.visual_errors.values()) < 1.5e-3
    assert found.distinct > 32, "an answer that repeats itself compares little"
    assert found.clear >= 20
    assert found.differing == 0
