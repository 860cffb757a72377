from __future__ import annotations

import pytest

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.world.exercises import held_out_exercises
from litevlm_ros.lab.world.splits import (
    EVALUATION_SCENES,
    FIRST_HELD_OUT_SEED,
    FIRST_VALIDATION_SEED,
    demo_seed,
    draft_head_seeds,
    draft_head_validation_seeds,
    evaluation_seeds,
    token_scorer_seed,
    view_selector_seeds,
)

HELD_OUT = range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + EVALUATION_SCENES)


def test_evaluation_and_demo_stay_inside_the_held_out_scenes() -> None:
    assert evaluation_seeds(5, seed=3) == HELD_OUT[3:8]
    assert evaluation_seeds(1, EVALUATION_SCENES - 1)[0] == HELD_OUT[-1]
    assert demo_seed(EVALUATION_SCENES - 1, 0) == HELD_OUT[-1]
    assert demo_seed(EVALUATION_SCENES - 1, 1) == HELD_OUT[0]


def test_training_and_validation_draw_other_scenes_than_the_evaluation() -> None:
    assert HELD_OUT.stop == FIRST_VALIDATION_SEED
    assert token_scorer_seed(999) + 999_999 < HELD_OUT.start
    assert view_selector_seeds(3000, seed=2) == range(6000, 9000)
    assert draft_head_seeds(200, seed=3).stop <= HELD_OUT.start
    assert set(draft_head_seeds(200, seed=0)).isdisjoint(draft_head_seeds(200, seed=1))
    assert draft_head_validation_seeds(5).start >= HELD_OUT.stop
    assert len(draft_head_validation_seeds(5)) == 5
    assert len(draft_head_validation_seeds(500)) == 20


@pytest.mark.parametrize(("seed", "scenes"), [(100, 1), (0, 1_000_001), (-1, 1)])
def test_draft_heads_have_a_hundred_runs(seed: int, scenes: int) -> None:
    with pytest.raises(ConfigError, match="allowed: 0 to 99"):
        draft_head_seeds(scenes, seed)


@pytest.mark.parametrize(("scenes", "seed"), [(0, 0), (10, -1), (1000, FIRST_HELD_OUT_SEED // 1000)])
def test_more_scenes_than_there_are_is_explained(scenes: int, seed: int) -> None:
    with pytest.raises(ConfigError, match=f"--scenes is {scenes} and --seed {seed}; allowed: .*Use fewer scenes"):
        view_selector_seeds(scenes, seed)


@pytest.mark.parametrize(
    ("seed", "scenes", "message"),
    [
        (0, 0, "scenes is 0"),
        (-1, 5, "seed is -1"),
        (EVALUATION_SCENES - 4, 5, "at most 500000000"),
    ],
)
def test_impossible_ranges_are_explained(seed: int, scenes: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        next(held_out_exercises(seed, scenes))
