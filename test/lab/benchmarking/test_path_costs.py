"""Paths against the least that any path needs, and against sums by hand."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from internvl2_1b import INTERNVL2_1B

from litevlm_ros.lab.benchmarking.boards import Rates
from litevlm_ros.lab.benchmarking.path_costs import path_ms, prefill_path, step_path, vision_path
from litevlm_ros.lab.benchmarking.roofline import Cost, decode_cost, prefill_cost, vision_cost

_TEXT_LAYERS = 24 * 896 * (2 * 896 + 256 + 3 * 4864)
_TABLE = 151656 * 896
_VISION_LAYERS = 24 * (4 * 1024**2 + 2 * 1024 * 4096)
_PROJECTOR = 4096 * 896 + 896**2


def size(path: Iterable[Cost]) -> float:
    return sum(cost.bytes for cost in path)


def flops(path: Iterable[Cost]) -> float:
    return sum(cost.flops for cost in path)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8", "int8", "int4"])
def test_a_token_reads_what_is_stored_and_little_more(precision: str) -> None:
    least, path = decode_cost(INTERNVL2_1B, 320, precision), step_path(INTERNVL2_1B, 1, 320, precision)
    assert least.bytes < size(path) < 1.01 * least.bytes
    assert flops(path) == pytest.approx(least.flops, rel=1e-3)


def test_a_draft_reads_weights_once() -> None:
    one, eight = (step_path(INTERNVL2_1B, new, 320, "fp8") for new in (1, 8))
    assert size(eight) < 1.03 * size(one)
    assert flops(eight) == pytest.approx(8 * flops(one), rel=1e-2)


def test_unpacking_reads_stored_bytes_and_writes_fp16() -> None:
    """The products then read the fp16 bytes, as they do without unpacking. Embedding and head are read in int8."""
    for precision, stored in (("fp8", 1.0), ("int8", 1.0), ("int4", 0.5 + 2 / 128)):
        text = size(prefill_path(INTERNVL2_1B, 320, 0, precision)) - size(prefill_path(INTERNVL2_1B, 320))
        assert text == pytest.approx((stored + 2) * _TEXT_LAYERS - _TABLE - 320 * 896)
    vision = size(vision_path(INTERNVL2_1B, 1, "fp8")) - size(vision_path(INTERNVL2_1B, 1))
    assert vision == pytest.approx(3 * (_VISION_LAYERS + _PROJECTOR))
    assert vision_path(INTERNVL2_1B, 1, "bf16") == vision_path(INTERNVL2_1B, 1, "fp16")


def test_arithmetic_is_that_of_the_model() -> None:
    assert flops(vision_path(INTERNVL2_1B, 6)) == pytest.approx(vision_cost(INTERNVL2_1B, 6).flops, rel=1e-2)
    # The last layer's MLP has one row.
    saved = 319 * 2 * (896**2 + 3 * 896 * 4864)
    assert flops(prefill_path(INTERNVL2_1B, 320)) + saved == pytest.approx(
        prefill_cost(INTERNVL2_1B, 320).flops, rel=1e-3
    )


def test_a_question_behind_a_prompt_attends_to_it() -> None:
    behind, alone = prefill_path(INTERNVL2_1B, 32, 320), prefill_path(INTERNVL2_1B, 32)
    assert size(behind) - size(alone) == 320 * 24 * 2 * 2 * 64 * 2
    assert flops(behind) - flops(alone) == 24 * 4 * 32 * 320 * 14 * 64


def test_kernels_run_one_after_the_other() -> None:
    path = (Cost(bytes=2e9, flops=0), Cost(bytes=0, flops=1e12))
    assert path_ms(path, Rates(bandwidth=1e12, flops=1e15)) == pytest.approx(2 + 1)
