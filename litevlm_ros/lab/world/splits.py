"""Seeds of the scenes that train models, and of those that are held out to judge them.

| seeds                      | drawn for                                                                  |
|----------------------------|----------------------------------------------------------------------------|
| from 0                     | training of the demo model, its tokenizer, token scorer and view selector  |
| from 900 000 000           | training of the draft head, on the demo model's own answers                |
| from FIRST_HELD_OUT_SEED   | evaluation and the demo                                                    |
| from FIRST_VALIDATION_SEED | progress of training (its log and the accuracy that it reports)            |
"""

from __future__ import annotations

from litevlm_ros.errors import ConfigError

FIRST_HELD_OUT_SEED = 1_000_000_000
"""Training draws scenes from seeds below this one."""

EVALUATION_SCENES = 500_000_000
"""Number of scenes, from FIRST_HELD_OUT_SEED on, that evaluation and the demo draw from."""

FIRST_VALIDATION_SEED = FIRST_HELD_OUT_SEED + EVALUATION_SCENES
"""Training measures its progress on scenes from this seed on, so that evaluation remains independent of it."""

_FIRST_DRAFT_HEAD_SEED = 900_000_000
"""The demo model's own training does not come to these seeds."""
_DRAFT_HEAD_SCENES = 1_000_000
_TOKEN_SCORER_SCENES = 1_000_000
_DEMO_MODEL_SCENES = 50_000_000
"""Distance between the first scenes of two runs with neighbouring seeds."""
_MOST_DRAFT_HEAD_VALIDATION_SCENES = 20


def demo_model_seed(seed: int, drawn: int) -> int:
    """Returns the first seed of a demo model's training run that has drawn `drawn` scenes before.

    Later ones follow it; behind the last training scene, the stream of scenes begins again at 0.
    """
    return seed * _DEMO_MODEL_SCENES + drawn


def token_scorer_seed(seed: int) -> int:
    """Returns the first scene of a token scorer's run. Raises ConfigError if later ones could be held out."""
    most = FIRST_HELD_OUT_SEED // _TOKEN_SCORER_SCENES - 1
    if not 0 <= seed <= most:
        raise ConfigError(f"seed is {seed}; allowed: 0 to {most}, as later scenes are for evaluation. Use 0")
    return seed * _TOKEN_SCORER_SCENES


def view_selector_seeds(scenes: int, seed: int) -> range:
    """Returns the scenes of a view selector's run, others for each `seed`. Raises ConfigError if there are too few."""
    first = seed * scenes
    if not 0 <= first < first + scenes <= FIRST_HELD_OUT_SEED:
        raise ConfigError(
            f"--scenes is {scenes} and --seed {seed}; allowed: from 1 and 0, as long as (seed + 1) x scenes is at most "
            f"{FIRST_HELD_OUT_SEED}, where held-out scenes begin. Use fewer scenes"
        )
    return range(first, first + scenes)


def draft_head_seeds(scenes: int, seed: int) -> range:
    """Returns the scenes of a draft head's run, others for each `seed`. Raises ConfigError if there are too few."""
    first = _FIRST_DRAFT_HEAD_SEED + seed * _DRAFT_HEAD_SCENES
    if seed < 0 or scenes > _DRAFT_HEAD_SCENES or first + scenes > FIRST_HELD_OUT_SEED:
        raise ConfigError(
            f"seed is {seed} with {scenes} scenes; allowed: 0 to 99, with at most {_DRAFT_HEAD_SCENES} scenes"
        )
    return range(first, first + scenes)


def draft_head_validation_seeds(scenes: int) -> range:
    """Returns `scenes` scenes to measure a draft head on, at most 20, which nothing is trained or evaluated on."""
    return range(FIRST_VALIDATION_SEED, FIRST_VALIDATION_SEED + min(scenes, _MOST_DRAFT_HEAD_VALIDATION_SCENES))


def evaluation_seeds(scenes: int, seed: int) -> range:
    """Returns `scenes` held-out scenes from FIRST_HELD_OUT_SEED + `seed` on.

    Raises ConfigError for a range that is empty or reaches the scenes that training measures its progress on.
    """
    if scenes < 1:
        raise ConfigError(f"scenes is {scenes}; allowed: from 1. Use at least 100 for a figure to rely on")
    if seed < 0 or seed + scenes > EVALUATION_SCENES:
        raise ConfigError(
            f"seed is {seed} with {scenes} scenes; allowed: from 0, with seed + scenes at most {EVALUATION_SCENES}, as "
            "training's own validation uses the scenes behind. Use a smaller seed"
        )
    return range(FIRST_HELD_OUT_SEED + seed, FIRST_HELD_OUT_SEED + seed + scenes)


def demo_seed(seed: int, number: int) -> int:
    """Returns the seed of the demo's scene `number`, counted from its first scene `seed`.

    The demo begins again with the first held-out scene behind the last. Raises ConfigError for a `seed` out of range.
    """
    if not 0 <= seed < EVALUATION_SCENES:
        raise ConfigError(f"--seed must be from 0 to {EVALUATION_SCENES - 1}, not {seed}")
    return FIRST_HELD_OUT_SEED + (seed + number) % EVALUATION_SCENES
