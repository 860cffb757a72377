from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from tiny_internvl import model_directory

from litevlm_ros.engines.plan_archive import PlanKey
from litevlm_ros.engines.shapes import (
    DEFAULT_CONTEXT,
    MOST_PROMPT,
    Sizes,
    foreseen,
    logit_rows,
    next_size,
    prompt_rows,
    tile_counts,
)
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, VISION


@pytest.fixture
def model() -> ModelConfig:
    """A model of 1024 positions, with 17 rows a tile."""
    return ModelConfig.from_directory(model_directory())


def test_the_context_is_bounded_by_the_model(model: ModelConfig) -> None:
    assert DEFAULT_CONTEXT > 1024
    assert Sizes(6, 0).checked(model) == Sizes(6, 1024)
    assert Sizes(6, 512).checked(model) == Sizes(6, 512)


@pytest.mark.parametrize("sizes", [Sizes(0, 0), Sizes(-1, 0), Sizes(1, 1025), Sizes(1, -1)])
def test_impossible_sizes_are_refused(model: ModelConfig, sizes: Sizes) -> None:
    with pytest.raises(ConfigError, match=r"max_(tiles|context) is -?\d+; allowed"):
        sizes.checked(model)


def test_tiles_go_to_the_most_and_more_than_twelve_run_in_several_calls() -> None:
    assert tile_counts(1) == (1,)
    assert tile_counts(6) == (1, 2, 3, 4, 5, 6)
    assert tile_counts(7) == (1, 2, 3, 4, 5, 6, 7)
    assert tile_counts(12) == tile_counts(40) == (1, 2, 3, 4, 5, 6, 8, 10, 12)


@pytest.mark.parametrize("most", [1, 5, 64, 500, 1024, MOST_PROMPT])
def test_prompts_are_ordered_and_end_with_the_most(most: int) -> None:
    rows = prompt_rows(most)
    assert list(rows) == sorted(set(rows))
    assert (rows[0], rows[-1]) == (1, most)


def test_no_prompt_from_256_tokens_on_is_filled_up_by_more_than_a_quarter() -> None:
    rows = prompt_rows(MOST_PROMPT)
    assert all(1.25 * count >= next_size(count, rows) for count in range(256, MOST_PROMPT + 1))
    assert {16, 64, 320, 448, 896, 1792} < set(rows)


def test_the_next_size_is_the_smallest_that_holds_the_count() -> None:
    assert [next_size(count, (1, 2, 4)) for count in (1, 2, 3, 4)] == [1, 2, 4, 4]
    with pytest.raises(ValueError, match=r"empty|min"):
        next_size(5, (1, 2, 4))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int4"])
def test_every_block_is_foreseen_for_each_size(precision: str, model: ModelConfig) -> None:
    vision = foreseen(VISION, Sizes(3, 512), model, precision)
    assert vision[:3] == (PlanKey("patches", 17), PlanKey("patches", 34), PlanKey("patches", 51))
    text = foreseen(TEXT, Sizes(3, 512), model, precision)
    assert_foreseen(vision, dict.fromkeys(("patches", "qkv", "mlp", "projector"), (17, 34, 51)))
    head = {} if precision == "int4" else {"head": logit_rows()}
    assert_foreseen(text, {"qkv": prompt_rows(512), "mlp": prompt_rows(512), **head})


def assert_foreseen(keys: Sequence[PlanKey], expected: Mapping[str, Sequence[int]]) -> None:
    assert list(keys) == [PlanKey(block, count) for block, rows in expected.items() for count in rows]


@pytest.mark.parametrize("most", [16, 64, 200, MOST_PROMPT])
def test_the_last_layers_mlp_is_foreseen_for_the_rows_whose_logits_are_wanted(most: int) -> None:
    assert set(logit_rows()) <= set(prompt_rows(most))
