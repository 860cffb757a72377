"""Costs against counts of the real architecture, and floors against arithmetic by hand."""

from __future__ import annotations

import pytest
from internvl2_1b import INTERNVL2_1B

from litevlm_ros.lab.benchmarking.roofline import Cost, decode_cost, prefill_cost, vision_cost


def test_weights_are_those_of_internvl2_1b() -> None:
    """InternViT-300M and the projector hold 308 M weights, Qwen2-0.5B 494 M with its embedding."""
    assert vision_cost(INTERNVL2_1B, 1).bytes / 2 == pytest.approx(308e6, rel=0.01)
    assert decode_cost(INTERNVL2_1B, 0).bytes / 2 == pytest.approx(494e6, rel=0.01)


def test_the_head_is_int8_beside_all_packed_layers() -> None:
    head = 151655 * 896
    half = decode_cost(INTERNVL2_1B, 0).bytes - 2 * head
    fp8, int8, int4 = (decode_cost(INTERNVL2_1B, 0, name).bytes - head for name in ("fp8", "int8", "int4"))
    assert fp8 == int8 == half / 2
    assert int4 == pytest.approx(half / 4 * (1 + 1 / 32))
    more, less = (prefill_cost(INTERNVL2_1B, 100, name).bytes for name in ("fp16", "fp8"))
    assert more - less == half / 2 + head


def test_the_patch_embedding_alone_stays_fp16_in_vision() -> None:
    half, fp8 = (vision_cost(INTERNVL2_1B, 1, name).bytes for name in ("fp16", "fp8"))
    assert 2 * fp8 - half == 2 * 3 * 14**2 * 1024


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
