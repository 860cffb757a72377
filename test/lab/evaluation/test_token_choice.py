from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.token_choice import TokenChoice, examine_tokens, tokens_json, tokens_table
from litevlm_ros.lab.world.exercises import held_out_exercises
from litevlm_ros.model_directory import demo_model_directory
from litevlm_ros.pipeline import Pipeline


def test_all_settings_answer_the_same_questions() -> None:
    pytest.importorskip("onnxruntime", reason="runs the demo model: pip install 'litevlm_ros[onnxruntime]'")
    pipe = Pipeline.from_config(PipelineConfig(demo_model_directory(), backend="onnxruntime", threads=1))
    notes: list[str] = []
    choices = examine_tokens(pipe, ["random", "diversity"], [1.0, 0.25], held_out_exercises(3, 2), notes.append)
    assert [(choice.method, choice.keep, choice.visual_tokens) for choice in choices] == [
        ("off", 1.0, 384), ("random", 1.0, 384), ("diversity", 1.0, 384), ("random", 0.25, 96), ("diversity", 0.25, 96)
    ]  # fmt: skip
    assert {len(choice.right) for choice in choices} == {24}
    assert choices[0].right == choices[1].right == choices[2].right, "all tokens are all tokens"
    assert sum(choices[4].right) > sum(choices[3].right)
    assert all(len(choice.select_ms) == len(choice.prefill_ms) == 2 for choice in choices)


def test_points_are_of_the_same_questions() -> None:
    everything = [True] * 90 + [False] * 10
    choices = [
        TokenChoice("off", 1.0, everything, [0.0], [9.0], 384),
        TokenChoice("random", 0.5, [True] * 60 + [False] * 40, [0.1], [5.0], 192),
        TokenChoice("diversity", 0.5, [True] * 88 + [False] * 12, [2.0], [5.0], 192),
    ]
    off, random, diversity = tokens_json(choices)
    assert (off["points_lost"], "points_above_random" in off, "points_above_random" in random) == (
        [0, 0, 0],
        False,
        False,
    )
    assert random["points_lost"][0] == 30
    assert diversity["points_lost"][0] == 2
    points, low, high = diversity["points_above_random"]
    assert points == 28
    assert 0 < low < 28 < high
    table = tokens_table(choices)
    assert "diversity, 50 %" in table
    assert "+28.0 (" in table


def test_a_method_without_its_network_is_refused_at_once(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="loads the demo model: pip install 'litevlm_ros[onnxruntime]'")
    (tmp_path / "model").mkdir()
    for entry in demo_model_directory().iterdir():
        if entry.name != "token_scorer.onnx":
            (tmp_path / "model" / entry.name).symlink_to(entry)
    pipe = Pipeline.from_config(PipelineConfig(tmp_path / "model", backend="onnxruntime", threads=1))
    with pytest.raises(ConfigError, match=r"token_selection is 'scorer', but .*token_scorer.onnx is missing"):
        examine_tokens(pipe, ["scorer"], [0.5], [], print)
