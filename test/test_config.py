from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from litevlm_ros.config import (
    SETTINGS,
    PipelineConfig,
    ReuseConfig,
    SamplingConfig,
    Setting,
    SpeculationConfig,
    TokenSelectionConfig,
    ViewSelectionConfig,
)
from litevlm_ros.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("seed", 0.5),
    ],
)
def test_wrong_sampling_names_field_value_range_and_fix(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{field} is .*{value!r}.*; allowed: .*\. To correct it, \w+"):
        SamplingConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backend", "cuda"),
        ("max_context", -1),
        ("max_tiles", 0),
        ("max_tiles", 41),
        ("threads", -1),
        ("threads", 2.0),
        ("system_prompt", 5),
        ("view_label", 5),
        ("view_label", "{name}: "),
        ("view_label", "{}"),
        ("view_label", "{camera!r}"),
        ("view_label", "{index:9}"),
        ("view_label", "{camera.__class__}"),
        ("view_label", "{camera"),
        ("view_label", "}"),
        ("view_label", "{{camera}}"),
    ],
)
def test_wrong_pipeline_settings_name_field_value_range_and_fix(field: str, value: Any) -> None:
    with pytest.raises(
        ConfigError, match=rf"^{field} is {re.escape(repr(value))}; allowed: .*\. (To correct it, )?[uU]se .+"
    ):
        PipelineConfig(Path("model"), **{field: value})


@pytest.mark.parametrize("label", ["", "{camera}: ", "Image-{index} ({camera}): ", "<img>{index}\n", "no field"])
def test_view_labels_may_have_the_number_and_the_camera(label: str) -> None:
    assert PipelineConfig(Path("model"), view_label=label).view_label == label


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("source", "magic", "speculation"),
        ("most_tokens", 0, "speculation_tokens"),
        ("most_tokens", 16, "speculation_tokens"),
    ],
)
def test_wrong_speculation_names_field_value_range_and_fix(field: str, value: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is {value!r}; allowed: .*\. (To correct it, u|U)se .+"):
        SpeculationConfig(**{field: value})


@pytest.mark.parametrize("frames", [-1, 1.5, 1001])
def test_wrong_reuse_names_field_value_range_and_fix(frames: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^reuse_frames is {frames!r}; allowed: .* To correct it, use 0"):
        ReuseConfig(frames)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "view_selection is 'magic'; allowed: off, lexical, learned"),
        ({"threshold": 1.5}, "view_selection_threshold is 1.5; allowed: numbers from 0, at most 1"),
        ({"phrases": {"hand": "gripper"}}, "view_selection_phrases of hand is 'gripper'; allowed: texts"),
        ({"phrases": {"hand": (" ",)}}, "view_selection_phrases of hand is "),
    ],
)
def test_wrong_view_selection_names_field_value_range_and_fix(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        ViewSelectionConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "token_selection is 'magic'; allowed: off, random, diversity, similarity, scorer"),
        ({"keep": 0.0}, "token_selection_keep is 0.0; allowed: numbers above 0, at most 1"),
        ({"keep": 1.01}, "token_selection_keep is 1.01; allowed: "),
        ({"keep": float("nan")}, "token_selection_keep is nan; allowed: "),
    ],
)
def test_wrong_token_selection_names_field_value_range_and_fix(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        TokenSelectionConfig(**settings)


def test_model_dir_is_required() -> None:
    with pytest.raises(ConfigError, match="model_dir is ''"):
        PipelineConfig("")  # type: ignore[arg-type]
    assert PipelineConfig("a/b").model_dir == Path("a/b")  # type: ignore[arg-type]


def test_limits_are_included() -> None:
    SamplingConfig(max_new_tokens=1, temperature=0, top_k=0, top_p=1, repetition_penalty=0.5, seed=0)
    PipelineConfig(Path("model"), max_tiles=40)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))
def test_a_setting_allows_its_default_its_choices_and_its_parameter_range(setting: Setting) -> None:
    for value in (setting.default, *(setting.parameter_range or setting.choices)):
        setting.check(value)


def test_greedy_needs_no_logits() -> None:
    assert SamplingConfig().greedy
    assert SamplingConfig(top_k=5, top_p=0.5, seed=3).greedy
    assert not SamplingConfig(temperature=0.1).greedy
    assert not SamplingConfig(repetition_penalty=1.1).greedy
