"""Projections against arithmetic by hand, and the presets of the boards against their projections."""

from __future__ import annotations

from dataclasses import replace

import pytest
from internvl2_1b import INTERNVL2_1B

from litevlm_ros.lab.benchmarking.boards import BOARDS
from litevlm_ros.lab.benchmarking.efficiency import PUBLISHED, Share
from litevlm_ros.lab.benchmarking.path_costs import path_ms, prefill_path, step_path, vision_path
from litevlm_ros.lab.benchmarking.projection import Preset, Projection, Time, project

UNTIED = replace(INTERNVL2_1B, text=replace(INTERNVL2_1B.text, tie_word_embeddings=False))
"""InternVL2-1B as it is published."""


def rows(name: str, mode: int = 0) -> list[Projection]:
    return project(UNTIED, BOARDS[name], BOARDS[name].modes[mode])


def preset(name: str, mode: int = 0) -> Projection:
    [row] = [row for row in rows(name, mode) if row.is_preset]
    return row


def test_boards_have_the_rates_of_their_data_sheets() -> None:
    """NVIDIA gives the GPU's INT8 TOPS with sparsity, which are four times dense fp16."""
    tops = {name: [4 * board.rates(mode).flops / 1e12 for mode in board.modes] for name, board in BOARDS.items()}
    assert tops["orin_agx"] == pytest.approx([108], rel=0.03)
    assert tops["orin_nx"] == pytest.approx([60, 77], rel=0.03)
    assert tops["orin_nano"] == pytest.approx([40, 67], rel=0.03)


@pytest.mark.parametrize("name", BOARDS)
def test_times_are_those_of_paths(name: str) -> None:
    board = BOARDS[name]
    rates = board.rates(board.modes[0])
    half, packed, *_ = rows(name)
    assert half.vision.floor == path_ms(vision_path(UNTIED, 1), rates)
    assert half.token.floor == path_ms(step_path(UNTIED, 1, 320), rates)
    assert packed.prefill.floor == path_ms(prefill_path(UNTIED, 320, 0, "fp8"), rates)
    assert packed.token.estimate == pytest.approx(packed.token.floor / 0.68)
    assert all(row.first_token.floor < row.first_token.estimate for row in rows(name))


def test_an_efficiency_of_one_is_the_floor() -> None:
    board = BOARDS["orin_nx"]
    perfect = replace(PUBLISHED, shares=dict.fromkeys(PUBLISHED.shares, Share(1, 1)))
    for row in project(UNTIED, board, board.modes[0], perfect):
        assert row.first_token.estimate == row.first_token.floor


def test_packed_weights_help_decoding_and_not_the_encoder() -> None:
    half, fp8, *_ = rows("orin_nano")
    assert fp8.token.floor < 0.7 * half.token.floor
    assert fp8.vision.floor > half.vision.floor
    assert fp8.prefill.floor > half.prefill.floor
    assert fp8.memory_bytes < half.memory_bytes - 0.6e9


def test_tokens_are_counted_from_the_first_one() -> None:
    row = replace(rows("orin_agx")[0], expected_ms=10.0, token=Time(2, 4))
    assert row.tokens_within(Time(10, 10)) == (1, 1)
    assert row.tokens_within(Time(4, 1)) == (4, 3)
    assert row.tokens_within(Time(10.5, 30)) == (0, 0)


@pytest.mark.parametrize("name", BOARDS)
def test_presets_fit_their_board_by_estimate(name: str) -> None:
    """A caption is ready before the next one is due, the memory is within the budget, and that is the goal."""
    settings, row = Preset.of(BOARDS[name]), preset(name)
    caption = row.first_token + row.token.times(settings.max_new_tokens - 1)
    assert caption.estimate < 1e3 * settings.caption_period
    assert row.memory_bytes < settings.memory_budget == BOARDS[name].expected_bytes
    assert 6 * row.visual_tokens + 64 + settings.max_new_tokens <= settings.max_context  # six cameras


@pytest.mark.parametrize("name", BOARDS)
def test_presets_are_faster_than_fp16(name: str) -> None:
    half, chosen = rows(name)[0], preset(name)
    tokens = Preset.of(BOARDS[name]).max_new_tokens
    times = [row.first_token + row.token.times(tokens - 1) for row in (half, chosen)]
    assert times[1].floor < times[0].floor
    assert times[1].estimate < times[0].estimate
    assert chosen.checked.estimate < 1.05 * chosen.token.estimate  # so drafts pay


def test_only_the_nano_drops_visual_tokens() -> None:
    assert [preset(name).visual_tokens for name in BOARDS] == [256, 256, 154]
