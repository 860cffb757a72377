"""Costs against counts of the real architecture, and floors and projections against arithmetic by hand."""

from __future__ import annotations

import math

import pytest

from litevlm_ros.lab.benchmarking.roofline import (
    BOARDS,
    Cost,
    decode_cost,
    prefill_cost,
    project,
    projection_table,
    vision_cost,
)
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig

INTERNVL2_1B = ModelConfig(
    vision=VisionConfig(1024, 4096, 24, 16, image_size=448, patch_size=14),
    text=TextConfig(896, 4864, 24, 14, 2, 64, 1e-6, 1e6, 151655, True, 32768),
    template="Hermes-2",
    use_thumbnail=True,
    max_dynamic_tiles=12,
)


def test_weights_are_those_of_internvl2_1b() -> None:
    """InternViT-300M and the projector hold 308 M weights, Qwen2-0.5B 494 M with its embedding."""
    assert vision_cost(INTERNVL2_1B, 1).bytes / 2 == pytest.approx(308e6, rel=0.01)
    assert decode_cost(INTERNVL2_1B, 0).bytes / 2 == pytest.approx(494e6, rel=0.01)


def test_quantized_layers_are_smaller_and_the_head_is_not() -> None:
    head = 2 * 151655 * 896
    half, fp8, int4 = (decode_cost(INTERNVL2_1B, 0, name).bytes - head for name in ("fp16", "fp8", "int4"))
    assert fp8 == half / 2
    assert int4 == pytest.approx(half / 4 * (1 + 1 / 32))


def test_a_prompt_computes_what_its_tokens_would_one_by_one() -> None:
    alone = sum(decode_cost(INTERNVL2_1B, length).flops for length in range(100))
    heads = 99 * 2 * 151655 * 896  # a prompt has logits of its last token only
    assert prefill_cost(INTERNVL2_1B, 100).flops == pytest.approx(alone - heads, rel=1e-3)
    assert decode_cost(INTERNVL2_1B, 1000).bytes - decode_cost(INTERNVL2_1B, 0).bytes == 1000 * 24 * 2 * 128 * 2


def test_tiles_share_the_weights() -> None:
    one, six = vision_cost(INTERNVL2_1B, 1), vision_cost(INTERNVL2_1B, 6)
    assert six.bytes == one.bytes
    assert six.flops == 6 * one.flops


def test_the_slower_of_memory_and_arithmetic_is_the_floor() -> None:
    assert Cost(bytes=2e9, flops=1e12).floor_ms(bandwidth=1e12, rate=1e15) == 2
    assert Cost(bytes=2e9, flops=1e13).floor_ms(bandwidth=1e12, rate=1e15) == 10


def test_boards_have_the_rates_of_their_data_sheets() -> None:
    """NVIDIA gives INT8 with sparsity, which is four times dense fp16: 40 TOPS for the Nano's GPU, 60 for the NX's."""
    assert 4 * BOARDS["orin_nano"].rate / 1e12 == pytest.approx(40, rel=0.03)
    assert 4 * BOARDS["orin_nx"].rate / 1e12 == pytest.approx(60, rel=0.03)
    assert 4 * BOARDS["orin_agx"].rate / 1e12 == pytest.approx(108, rel=0.03)


def test_projections_follow_bandwidth_and_compute() -> None:
    rows = {name: project(INTERNVL2_1B, board) for name, board in BOARDS.items()}
    for name, board in BOARDS.items():
        half, int4 = rows[name]
        assert half.token_ms == pytest.approx(1e3 * decode_cost(INTERNVL2_1B, 320).bytes / board.bandwidth)
        assert int4.token_ms < half.token_ms / 2
        assert half.first_token_ms == half.vision_ms + half.prefill_ms
    printed = projection_table([row for each in rows.values() for row in each])
    assert printed.startswith("ESTIMATE")
    assert all(math.isfinite(row.first_token_ms) and board.title in printed
               for name, board in BOARDS.items() for row in rows[name])  # fmt: skip
