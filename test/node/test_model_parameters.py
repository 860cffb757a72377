from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from litevlm_ros.config import (
    PipelineConfig,
    ReuseConfig,
    SamplingConfig,
    SpeculationConfig,
    TokenSelectionConfig,
    ViewSelectionConfig,
)
from litevlm_ros.errors import ConfigError
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.node import model_parameters
from litevlm_ros.node.model_parameters import MODEL_PARAMETERS, read_pipeline_config
from litevlm_ros.node.parameter_types import Values

pytestmark = pytest.mark.ros


def config(**changes: Any) -> PipelineConfig:
    known = {name: parameter.default for name, parameter in MODEL_PARAMETERS.items()}
    assert set(changes) <= set(known)
    node: Any = SimpleNamespace(get_parameter=lambda name: SimpleNamespace(value={**known, **changes}[name]))
    return read_pipeline_config(Values(node, MODEL_PARAMETERS))


def test_defaults_are_those_of_the_pipeline() -> None:
    directory = demo_model_directory()
    assert (directory / "text_decoder" / "config.json").exists()
    assert config() == PipelineConfig(model_dir=directory)


def test_every_parameter_arrives() -> None:
    assert config(
        model_dir="/some/where", engine_dir="/else/where", vision_precision="int8", text_precision="int4",
        memory_budget_mb=3000, backend="onnxruntime", threads=3, max_tiles=4.0, max_context=900, system_prompt="Be.",
        max_new_tokens=9, temperature=1, top_k=5, top_p=0.5, repetition_penalty=1.2,
        speculation="ngram", speculation_tokens=7, reuse_frames=3,
        view_selection="lexical", view_selection_threshold=0.3, view_selection_phrases=["hand: gripper, tool"],
        token_selection="diversity", token_selection_keep=0.25,
    ) == PipelineConfig(
        model_dir=Path("/some/where"), engine_dir=Path("/else/where"), vision_precision="int8", text_precision="int4",
        memory_budget_mb=3000, backend="onnxruntime", threads=3, max_tiles=4, max_context=900,
        system_prompt="Be.", sampling=SamplingConfig(9, 1.0, 5, 0.5, 1.2),
        speculation=SpeculationConfig("ngram", 7), reuse=ReuseConfig(3),
        view_selection=ViewSelectionConfig("lexical", 0.3, {"hand": ("gripper", "tool")}),
        token_selection=TokenSelectionConfig("diversity", 0.25),
    )  # fmt: skip


def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/robot")
    assert config(model_dir="~/models").model_dir == Path("/home/robot/models")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "magic"}, "^parameter backend is 'magic'; allowed: auto"),
        ({"max_tiles": 0}, "^parameter max_tiles is 0"),
        ({"top_p": 2.0}, "^parameter top_p is 2; allowed: numbers from 0.001 to 1"),
        ({"reuse_frames": -1}, "^parameter reuse_frames is -1"),
        ({"speculation": "magic"}, "^parameter speculation is 'magic'; allowed: off, ngram"),
        ({"speculation_tokens": 16}, "^parameter speculation_tokens is 16; allowed: whole numbers from 1 to 15"),
        ({"view_selection": "magic"}, "^parameter view_selection is 'magic'; allowed: off, lexical, learned"),
        ({"view_selection_phrases": ["hand"]}, "^parameter view_selection_phrases has 'hand'; allowed: CAMERA: PHRASE"),
        ({"view_selection_phrases": ["hand: a,,b"]}, "^parameter view_selection_phrases of hand is "),
        ({"token_selection": "magic"}, "^parameter token_selection is 'magic'; allowed: off, random, diversity"),
        ({"token_selection_keep": 1.5}, "^parameter token_selection_keep is 1.5; allowed: numbers from 0.001 to 1"),
        ({"threads": 1.5}, "^parameter threads must be a whole number, not 1.5"),
        ({"system_prompt": True}, "^parameter system_prompt must be a text, not True"),
    ],
)
def test_mistakes_name_the_parameter(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


@pytest.mark.parametrize("name", [name for name, parameter in MODEL_PARAMETERS.items() if parameter.low is not None])
def test_the_pipeline_takes_all_of_a_range(name: str) -> None:
    parameter = MODEL_PARAMETERS[name]
    config(**{name: parameter.low})
    config(**{name: parameter.high})


def test_a_missing_demo_model_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_parameters, "_DEMO_MODEL", Path("models") / "nothing")
    with pytest.raises(
        ConfigError, match=r"model_dir is empty, but the demo model is not installed .looked in .*nothing"
    ):
        config()
