from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_internvl import model_directory

from litevlm_ros.config import PipelineConfig, SamplingConfig
from litevlm_ros.convert.model_description import copy_description
from litevlm_ros.errors import EngineError
from litevlm_ros.lab.evaluation.answering import Reply
from litevlm_ros.lab.evaluation.precision_loss import (
    Loss,
    PrecisionScore,
    examine_precisions,
    precision_json,
    precision_table,
)
from litevlm_ros.lab.world.exercises import held_out_exercises
from litevlm_ros.lab.world.questions import Question
from litevlm_ros.precision import choose_precision
from litevlm_ros.types import Timings

EXERCISES = list(held_out_exercises(0, 1))


def scored(name: str, right: str) -> PrecisionScore:
    """Short answers of which those with 'r' are right."""
    question = Question("Is there a car?", "yes", "existence", ("front",))
    texts = {"r": "Yes", "w": "no", "x": "maybe"}
    replies = tuple(Reply(EXERCISES[0], question, texts[letter], Timings()) for letter in right)
    return PrecisionScore(name, f"the backend in {name}", replies)


def test_a_loss_counts_only_questions_that_one_of_both_gets_right() -> None:
    loss = Loss.of(scored("fp32", "rrrrrrrwww"), scored("fp8", "rrrrrwwrxw"))
    assert loss.points == pytest.approx(10.0)
    assert loss.changed == pytest.approx(0.4)
    assert loss.low < 0 < loss.points < loss.high
    assert loss.high - loss.points == pytest.approx(loss.points - loss.low)
    assert Loss.of(scored("fp32", "rw" * 500), scored("fp8", "rw" * 500)) == Loss(0, 0, 0, 0)


def test_the_table_has_a_row_for_each_precision_and_names_what_ran() -> None:
    results = [scored("fp32", "rrrw"), scored("fp8", "rrww")]
    table = precision_table(results)
    assert "4 questions and 0 captions" in table
    assert "75.0 (30.1 to 95.4)" in table
    assert "25.00 (-17.43 to 67.43)" in table
    assert "the backend in fp8" in table
    first, second = precision_json(results)
    assert (first["lost_points"], second["lost_points"]) == (0, 25)
    assert second["answers"]["right"], second["answers"]["of"] == (2, 4)


def test_each_precision_is_drawn_and_asked_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model_export = pytest.importorskip("litevlm_ros.convert.export", reason="drawing graphs needs torch")
    drawn: list[Any] = []

    def export(model: Path, output: Path, precisions: dict[str, str], **_: Any) -> Iterator[None]:
        drawn.append(precisions)
        copy_description(model, output)
        for part, precision in precisions.items():
            built = choose_precision(part, precision, None).built
            yield shutil.copyfile(model / f"{part}.onnx", output / f"{part}_{built}.onnx") and None

    monkeypatch.setattr(model_export, "export_graphs", export)
    notes: list[str] = []
    config = PipelineConfig(model_directory(), threads=1, sampling=SamplingConfig(max_new_tokens=4))
    results = examine_precisions(config, ["fp16", "int4"], EXERCISES[:1], notes.append)
    assert drawn == [dict.fromkeys(("vision_encoder", "text_decoder"), precision) for precision in ("fp16", "int4")]
    assert [result.precision for result in results] == ["fp32", "fp16", "int4"]
    assert results[2].backend.endswith(", int4")
    assert Loss.of(results[0], results[2]) == Loss(0, 0, 0, 0), "it is the same graph here"
    assert len(notes) == 3


def test_engines_that_are_missing_are_named(tmp_path: Path) -> None:
    notes: list[str] = []
    config = PipelineConfig(model_directory(), backend="tensorrt", threads=1, sampling=SamplingConfig(max_new_tokens=4))
    results = examine_precisions(config, ["fp8"], EXERCISES[:1], notes.append)
    assert [result.precision for result in results] == ["fp32"]
    assert notes[-1].startswith("fp8 is left out: ")


def test_a_model_that_runs_in_nothing_is_an_error(tmp_path: Path) -> None:
    copy_description(model_directory(), tmp_path)
    with pytest.raises(EngineError, match="runs in none of fp32, fp8"):
        examine_precisions(PipelineConfig(tmp_path, backend="tensorrt"), ["fp8"], EXERCISES[:1], lambda line: None)
