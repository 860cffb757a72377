from __future__ import annotations

import pytest
from tiny_internvl import model_directory

from litevlm_ros.engines.profiles import DEFAULT_CONTEXT, Sizes, profiles
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import TEXT, VISION


@pytest.fixture
def model() -> ModelConfig:
    """A model of 1024 positions with 4 visual tokens a tile."""
    return ModelConfig.from_directory(model_directory())


def test_the_context_is_bounded_by_the_model(model: ModelConfig) -> None:
    assert DEFAULT_CONTEXT > 1024
    assert Sizes(6, 0).checked(model) == Sizes(6, 1024)
    assert Sizes(6, 512).checked(model) == Sizes(6, 512)


@pytest.mark.parametrize("sizes", [Sizes(0, 0), Sizes(-1, 0), Sizes(1, 1025), Sizes(1, -1)])
def test_impossible_sizes_are_refused(model: ModelConfig, sizes: Sizes) -> None:
    with pytest.raises(ConfigError, match=r"max_(tiles|context) is -?\d+; allowed"):
        sizes.checked(model)


def test_vision_takes_up_to_the_most_tiles(model: ModelConfig) -> None:
    (profile,) = profiles(VISION, Sizes(3, 1024), model)
    assert profile.shapes == {"pixels": (1, 3, 3)}


def test_text_has_a_profile_for_prompts_and_one_for_few_tokens(model: ModelConfig) -> None:
    prefill, decode = profiles(TEXT, Sizes(3, 1024), model)
    assert prefill.shapes["input_ids"] == (1, 320, 1024)
    assert decode.shapes["input_ids"] == (1, 1, 16)
    for profile in (prefill, decode):
        assert profile.shapes["visual_tokens"] == (1, 12, 12), "the whole block is bound in every call"
        assert profile.shapes["past_key"] == profile.shapes["past_value"] == (1, 512, 1024)
        assert all(least <= likely <= most for least, likely, most in profile.shapes.values())


def test_small_contexts_still_give_valid_profiles(model: ModelConfig) -> None:
    for profile in profiles(TEXT, Sizes(12, 8), model):
        assert all(least <= likely <= most <= 8 or name == "visual_tokens"
                   for name, (least, likely, most) in profile.shapes.items())  # fmt: skip
