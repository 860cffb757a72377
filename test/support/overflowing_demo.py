"""The demo model with outliers and fp16 graphs: some words overflow, and others do not."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outliers import write_model_with_outlier
from shared_files import made_once

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import View

BAD_WORDS = ("vehicles", "buses", "back", "on")
"""Words whose values in the first layer overflow in fp16, by at least 0.9 %; those of all other words that tests use
stay as far below. The values of a layer's input depend on nothing but the word."""
_FACTOR = 1.3e4
"""The factor of all values of the first layer, whose output projection is divided by it, so in exact arithmetic the
model is the same. Largest values before: vehicles 6.8, buses 6.3, back 5.7, on 5.4, users 5.2; at 4.99, near 4.8."""

SAMPLING = SamplingConfig(max_new_tokens=8)


def overflowing_model() -> Path:
    """The model directory, made once for all workers of a test run. Not to be changed: copy it first."""
    pytest.importorskip("torch", reason="exports a model: pip install 'litevlm_ros[convert]'")
    return made_once("overflowing_demo", _write) / "model"


def _write(root: Path) -> None:
    from litevlm_ros.convert.export import export_text_decoder, export_vision_encoder

    model = demo_model_directory()
    weights = {"v_proj.weight": _FACTOR, "v_proj.bias": _FACTOR, "o_proj.weight": 1 / _FACTOR}
    for name, (weight, factor) in zip(("weight", "bias", "model"), weights.items(), strict=True):
        model = write_model_with_outlier(model, root / name, factor, 0, f"self_attn.{weight}")
    for export in (export_vision_encoder, export_text_decoder):
        export(model, model, "fp16", share=True, check=False)


def open_pipeline(precision: str = "fp16", **settings: Any) -> Pipeline:
    """The model in fp16, or in fp32 with 'auto'."""
    return Pipeline.from_config(
        PipelineConfig(overflowing_model(), threads=1, vision_precision=precision, text_precision=precision, **settings)
    )


@functools.cache
def questions() -> list[tuple[View, str]]:
    """30 questions: six about each of five pictures, which are frames, so that they are encoded once.

    Some have a bad word; for others the answer has one.
    """
    words = ("What is ahead?", "How many vehicles are there?", "Which color is the truck?", "Are there buses?",
             "Is the road clear?", "What is near the tree?")  # fmt: skip
    return [(View("front", picture(seed), frame=seed), text) for seed in range(5) for text in words]


def picture(seed: int) -> Any:
    rows, columns = np.indices((224, 224))
    waves = [127 + 127 * np.sin((rows * (seed + 1) + columns * (channel + 2)) / 15) for channel in range(3)]
    return np.stack(waves, -1).astype(np.uint8)
