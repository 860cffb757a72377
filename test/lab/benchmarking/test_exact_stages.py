from __future__ import annotations

import numpy as np
import pytest
from tiny_internvl import model_directory

from litevlm_ros.lab.benchmarking.exact_stages import (
    STAGES,
    Stage,
    fitting,
    sample_prompt,
    sample_tiles,
    sample_views,
    tiles_in,
)
from litevlm_ros.lab.benchmarking.roofline import decode_cost, prefill_cost, vision_cost
from litevlm_ros.model_config import ModelConfig


@pytest.mark.parametrize(("length", "visual"), [(448, 256), (65, 64), (20, 0)])
def test_prompts_have_their_length_and_their_visual_tokens_in_order(length: int, visual: int) -> None:
    ids = sample_prompt(300, length, visual)
    assert len(ids) == length
    assert ids[ids >= 300].tolist() == list(range(300, 300 + visual))
    assert ids.min() >= 20


def test_tiles_and_views_differ() -> None:
    tiles = sample_tiles(3, 32)
    assert (tiles.shape, tiles.dtype) == ((3, 32, 32, 3), np.uint8)
    assert len({tile.tobytes() for tile in tiles}) == 3
    assert len({view.image.tobytes() for view in sample_views(6)}) == 6


def test_stages_know_their_costs_and_fit_the_cache() -> None:
    model = ModelConfig.from_directory(model_directory())
    assert Stage("vision", 2).cost(model, "int8", "fp16") == vision_cost(model, 2, "int8")
    assert Stage("prefill", 50).cost(model, "fp16", "fp8") == prefill_cost(model, 50, "fp8")
    assert Stage("decode", 50).cost(model, "fp16", "bf16") == decode_cost(model, 50, "bf16")
    assert [stage.size for stage in fitting(STAGES, model, 500) if stage.kind != "vision"] == [448, 448]
    assert tiles_in(model, 9) == 2
    assert len({stage.title for stage in STAGES}) == len(STAGES)
