"""The kernel of a decode step, on the host, against the same step in numpy with float64."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from decode_bench import DecodeBench
from decode_reference import bits, chosen

from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.kernels.decode import WeightFormat
from litevlm_ros.runtime.tensorrt.kernels.teams import Teams
from litevlm_ros.runtime.tensorrt.numbers import to_words

SHARED = TextConfig(128, 384, 2, 4, 1, 32, 1e-5, 1e4, 301, True, 1024)
"""All query heads share the keys."""
SINGLE = TextConfig(128, 128, 2, 2, 2, 64, 1e-5, 1e4, 203, True, 1024)
"""Each key head belongs to one query head, and is wide."""
UNEVEN = TextConfig(224, 160, 2, 6, 2, 32, 1e-5, 1e4, 301, True, 1024)
"""Three query heads share the keys, and widths are multiples of 32 alone."""
WIDE = TextConfig(128, 384, 2, 4, 1, 64, 1e-5, 1e4, 301, True, 1024)
"""All query heads share the keys, and all widths are multiples of 64."""
QWEN3 = TextConfig(128, 192, 2, 4, 2, 64, 1e-5, 1e4, 301, True, 1024, qkv_bias=False, qk_norm=True)
"""Queries are wider than rows, and the heads of queries and keys are normalised."""
BROAD = replace(QWEN3, head_dim=128)
"""A lane has two pairs of numbers of a head."""
FEW, SOME, MANY = 2, 4, 5
"""Warps of a block that compute."""
ALONE, SINGLES, PAIRS, FOURS = Teams(1, 1), Teams(3, 1), Teams(2, 2), Teams(1, 4)
"""Divisions of blocks: each team of the first and of the last has all heads, one after the other."""
PLAIN, FP8, INT8 = WeightFormat(), WeightFormat("fp8"), WeightFormat("int8")
VARIANTS = [
    (SHARED, "fp16", PLAIN, 1, FEW),
    (SINGLE, "fp16", PLAIN, 8, SOME),
    (SHARED, "fp16", PLAIN, 16, SOME),
    (UNEVEN, "fp16", PLAIN, 16, MANY),
    (UNEVEN, "bf16", PLAIN, 1, 3),
    (SHARED, "bf16", PLAIN, 16, SOME),
    (WIDE, "fp16", FP8, 1, MANY),
    (SINGLE, "fp16", FP8, 16, MANY),
    (SINGLE, "fp16", INT8, 1, FEW),
    (WIDE, "fp16", INT8, 8, 3),
    (SINGLE, "fp16", WeightFormat("int4", 128), 1, FEW),
    (WIDE, "fp16", WeightFormat("int4", 128), 16, SOME),
    (WIDE, "fp16", WeightFormat("int4", 64), 8, SOME),
    (QWEN3, "fp16", PLAIN, 1, FEW),
    (QWEN3, "bf16", PLAIN, 8, SOME),
    (BROAD, "fp16", PLAIN, 8, SOME),
    (BROAD, "fp16", FP8, 1, MANY),
    (replace(SHARED, qk_norm=True), "fp16", PLAIN, 8, 3),
]
PAST = (0, 1, 17, 70, 203)


@functools.cache
def bench(
    config: TextConfig, computed: str = "fp16", stored: WeightFormat = PLAIN, visual: str = "fp16"
) -> DecodeBench:
    return DecodeBench(config, computed, stored, visual)


def some_ids(config: TextConfig, count: int) -> Any:
    return (np.arange(count) * 7919 + 31) % config.vocab_size


def counts_up_to(tokens: int) -> list[int]:
    """Numbers of new tokens that need a kernel for `tokens` of them: all, and fewer."""
    return {1: [1], 8: [8, 3], 16: [16, 11]}[tokens]


@pytest.mark.parametrize(("config", "computed", "stored", "tokens", "warps"), VARIANTS)
def test_it_computes_what_float64_does(
    config: TextConfig, computed: str, stored: WeightFormat, tokens: int, warps: int
) -> None:
    """One block does everything, or teams of one or several wait for each other."""
    step = bench(config, computed, stored)
    for place, past in enumerate(PAST):
        counts = counts_up_to(tokens)
        for division, teams in enumerate((ALONE, PAIRS, FOURS)):
            step.set(some_ids(config, counts[(place + division) % len(counts)]), past)
            step.run(tokens, warps, teams)
            step.check()


@pytest.mark.parametrize("tokens", [1, 8])
def test_more_blocks_than_a_part_has_work_for(tokens: int) -> None:
    """Some teams have no head, and some blocks no tile of a product or no keys, and go on."""
    step = bench(SINGLE)
    for past in (0, 70, 20):
        step.set(some_ids(SINGLE, tokens), past)
        step.run(tokens, SOME, Teams(4, 8))
        step.check()


@pytest.mark.parametrize("tokens", [1, 16])
def test_the_order_in_which_teams_add_changes_nothing(tokens: int) -> None:
    """Teams run beside each other, each time in another order, and the last bits are the same."""
    step, found = bench(SHARED), []
    for _ in range(4):
        step.set(some_ids(SHARED, tokens), 33)
        step.run(tokens, SOME, Teams(8, 1))
        found.append(step.some_logits())
    for logits in found[1:]:
        np.testing.assert_array_equal(logits, found[0])


@pytest.mark.parametrize(("tokens", "visual"), [(1, "fp16"), (8, "bf16")])
def test_visual_tokens_are_rows_of_their_own(tokens: int, visual: str) -> None:
    step = bench(SINGLE, visual=visual)
    ids = some_ids(SINGLE, tokens)
    ids[::3] = SINGLE.vocab_size + 1 + np.arange(len(ids[::3]))
    step.set(ids, 9)
    step.run(tokens, SOME, PAIRS, visual_is_bf16=int(visual == "bf16"))
    step.check()


@pytest.mark.parametrize(("tokens", "count"), [(1, 1), (8, 8), (8, 5), (16, 16)])
def test_masks_and_penalties_change_the_choice_alone(tokens: int, count: int) -> None:
    step, random, words = bench(SINGLE), np.random.default_rng(3), SINGLE.vocab_size
    step.set(some_ids(SINGLE, count), 9)
    step.run(tokens, SOME, SINGLES)
    logits, plain = step.some_logits(), step.next_tokens[:count].copy()
    allowed, penalised = random.random(words) < 0.1, random.random(words) < 0.5
    penalised[plain] = True
    last, penalty = np.arange(words) == words - 1, np.array([1.7], np.float32)
    for only, less in ((allowed, None), (None, penalised), (allowed, penalised), (last, penalised), (~last, None)):
        given = {"allowed": 0 if only is None else bits(only), "penalised": 0 if less is None else bits(less)}
        step.next_tokens[:] = -1
        step.run(tokens, SOME, SINGLES, **given, penalty=penalty)
        np.testing.assert_array_equal(step.some_logits(), logits)
        np.testing.assert_array_equal(step.next_tokens[:count], chosen(logits, only, less, penalty[0]))


@pytest.mark.parametrize(("teams", "kind"), [(ALONE, "fp16"), (Teams(5, 1), "fp16"), (PAIRS, "bf16")])
def test_of_equal_logits_the_first_is_chosen(teams: Teams, kind: str) -> None:
    """All are zero, as the last norm is."""
    step = DecodeBench(UNEVEN, kind, PLAIN, "fp16")
    step.final_norm[:] = 0
    step.set(some_ids(UNEVEN, 2), 3)
    step.run(8, SOME, teams)
    assert step.next_tokens[:2].tolist() == [0, 0]
    allowed = np.isin(np.arange(UNEVEN.vocab_size), [300, 257, 258])
    step.run(8, SOME, teams, allowed=bits(allowed))
    assert step.next_tokens[:2].tolist() == [257, 257]


@pytest.mark.parametrize("is_penalised", [False, True])
def test_steps_move_on_by_themselves(is_penalised: bool) -> None:
    """They compute what a step of all their tokens computes."""
    step, past, count = bench(SHARED), 20, 5
    ring, steps = np.zeros(3, np.int64), np.array([4])
    flags, penalty = np.zeros(SHARED.vocab_size, bool), np.array([5], np.float32)
    penalised = bits(flags)
    changes = {"penalised": penalised, "penalty": penalty} if is_penalised else {}
    step.set(np.array([17]), past)
    read, logits = [], []
    for place in range(count):
        read.append(int(step.ids[0]))
        step.run(1, FEW, PAIRS, ring=ring, ring_size=3, steps=steps, **changes)
        logits.append(step.some_logits()[0])
        (token,) = chosen(logits[-1][None], None, flags if is_penalised else None, 5)
        flags[token] = True
        assert step.next_tokens[0] == step.ids[0] == ring[(4 + place) % 3] == token
        assert (step.positions[0], steps[0]) == (3 + past + place + 1, 4 + place + 1)
        assert step.lengths.tolist() == [1, past + 1 + place + 1]
    np.testing.assert_array_equal(penalised, bits(flags) if is_penalised else 0)
    assert len(set(read)) == count or not is_penalised
    words = step.cache[:, :, past : past + count].copy()
    step.set(np.array(read), past)
    step.positions[:count] = 3 + past + np.arange(count)
    step.run(8, SOME, ALONE)
    step.hold(np.stack(logits), step.some_logits(), "logits")
    step.hold(step.numbers(words), step.numbers(step.cache[:, :, past : past + count]), "the cache")


@pytest.mark.parametrize(("tokens", "count"), [(1, 1), (8, 5), (16, 16)])
def test_numbers_that_are_not_finite_are_flagged_and_the_next_step_is_sound(tokens: int, count: int) -> None:
    step = DecodeBench(SINGLE, "fp16", PLAIN, "fp16")
    infinite, ids = SINGLE.vocab_size + 1, some_ids(SINGLE, count)
    step.visual_words[1] = to_words(np.full(SINGLE.hidden_size, np.inf), "fp16")
    first_bias, second_bias = (step.biases[layer] for layer in (0, 1))
    size, ring, steps = SINGLE.head_dim, np.zeros(3, np.int64), np.zeros(1, np.int64)

    def flags(**changes: Any) -> list[int]:
        step.run(tokens, SOME, SINGLES, **changes)
        return list(step.bad.tolist())

    step.set(ids, 50)
    step.ids[count:] = infinite
    assert flags() == [0, 0, 0], "what only fills up is not read"
    step.set(np.append(ids[:-1], infinite), 50)
    assert flags(ring=ring, ring_size=3, steps=steps) == [1, 1, 1]
    assert ring[0] == -1
    for place in (2 * size, 4 * size - 1, 4 * size, -1):  # keys of the first head, of the last, and values
        step.set(ids, 50)
        second_bias[place] = np.inf
        assert flags()[:2] == [0, 1]
        second_bias[place] = 0
    step.set(ids, 50)
    first_bias[0], step.final_norm[3] = 1e5, np.inf  # a query beyond fp16's range
    assert flags()[0] == 0, "queries are not kept"
    first_bias[0] = 0
    step.set(ids, 50)
    assert flags() == [0, 0, 1], "logits alone"
    step.final_norm[3] = 1
    step.set(ids, 50)
    assert flags() == [0, 0, 0]
    assert np.isfinite(step.some_logits()).all()
