from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from package_files import DEMO_MODEL

from litevlm_ros.config import PipelineConfig, ViewSelectionConfig
from litevlm_ros.errors import ContextOverflowError, EngineError
from litevlm_ros.lab.evaluation.table_accuracy import (
    RowAccuracy,
    load_or_draw,
    measure_accuracy,
    row_from_json,
    row_json,
)
from litevlm_ros.lab.evaluation.table_rows import Parts, table_questions, table_rows
from litevlm_ros.types import Answer, FinishReason, Timings, TokenCounts, View

ASKED = table_questions(0, 5)
ROWS = table_rows(PipelineConfig(Path("models")), Parts("lexical"))
TRUTH = {one.question.text: one.question.answer for one in ASKED}


class Knowing:
    """Answers rightly from all views, with view selection from the first one and with "no"."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self.backend = SimpleNamespace(description="a script")
        self.closed = False

    def generate(self, views: Sequence[View], question: str) -> Answer:
        if self.config.token_selection.method == "random":
            raise ContextOverflowError("too long")
        choosing = self.config.view_selection.method != "off"
        cameras = tuple(view.camera for view in views)[: 1 if choosing else None]
        text = "no" if choosing else TRUTH[question]
        return Answer(
            text, question, cameras, FinishReason.STOP, TokenCounts(9, 4 * len(cameras), 1), Timings(total=1.0)
        )

    def close(self) -> None:
        self.closed = True


def test_rows_are_scored_and_share_answers_where_only_speed_differs() -> None:
    loaded: list[Knowing] = []

    def load(config: PipelineConfig) -> Knowing:
        if config.text_precision == "fp8":
            raise EngineError("no FP8 here")
        loaded.append(Knowing(config))
        return loaded[-1]

    notes: list[str] = []
    rows: dict[str, RowAccuracy] = {}
    measure_accuracy(ROWS, ASKED, notes.append, {}, rows.__setitem__, load)
    assert list(rows) == [row.name for row in ROWS]
    base, views = rows["base"], rows["view_selection"]
    assert (base.right.hits, base.right.total) == (5, 5)
    assert (base.views, base.visual_tokens) == (6, 24)
    assert {given.choose_ms for given in base.given} == {0}
    assert (views.views, views.visual_tokens) == (1, 4)
    assert all(given.choose_ms > 0 for given in views.given)
    assert views.right.hits == sum(one.scored and one.question.answer == "no" for one in ASKED)
    assert views.given[0].right is None, "a caption"
    assert rows["speculation"] is base
    assert rows["random_tokens"].obstacle == "too long"
    assert rows["all_fp8"].obstacle == "no FP8 here"
    assert not rows["all_fp8"].given
    assert len(loaded) == 5, "base, views, tokens, random tokens, all"
    assert all(pipeline.closed for pipeline in loaded)
    assert all(pipeline.config.speculation.source == "off" for pipeline in loaded)
    assert len(notes) == 6

    known = {name: rows[name] for name in ("base", "all")}
    kept: dict[str, RowAccuracy] = {}
    measure_accuracy(ROWS, ASKED, print, known, kept.__setitem__, load)
    assert list(kept) == ["view_selection", "token_selection", "random_tokens", "speculation", "all_fp8"]
    assert kept["speculation"] is base
    assert len(loaded) == 5 + 3


def test_a_row_comes_back_from_json() -> None:
    rows: dict[str, RowAccuracy] = {}
    measure_accuracy(ROWS[:2], ASKED, print, {}, rows.__setitem__, Knowing)
    for row in rows.values():
        assert row_from_json(json.loads(json.dumps(row_json(row)))) == row


@pytest.fixture
def model_export() -> Any:
    pytest.importorskip("onnxruntime", reason="the demo model runs on ONNX Runtime")
    return pytest.importorskip("litevlm_ros.convert.export", reason="drawing graphs needs torch")


def test_graphs_that_are_missing_are_drawn_beside_the_other_files(
    model_export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Mapping[str, str]] = []

    def export(model: Path, output: Path, precisions: Mapping[str, str], **_: Any) -> Iterator[None]:
        drawn.append(precisions)
        shutil.copytree(model, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns("view_selector.onnx"))
        for part, precision in precisions.items():
            (output / f"{part}.onnx").rename(output / f"{part}_{precision}.onnx")
            yield

    monkeypatch.setattr(model_export, "export_graphs", export)
    config = PipelineConfig(
        DEMO_MODEL,
        backend="onnxruntime",
        threads=1,
        vision_precision="fp16",
        text_precision="fp8",
        view_selection=ViewSelectionConfig("learned"),
    )
    pipeline = load_or_draw(config)
    assert drawn == [{"vision_encoder": "fp16", "text_decoder": "fp8"}]
    assert pipeline.backend.description.endswith("vision fp16, text fp8")
    assert pipeline.config.view_selection.method == "learned"
    pipeline.close()


def test_what_is_there_is_loaded_and_engines_are_not_replaced(
    model_export: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(model_export, "export_graphs", None)
    load_or_draw(PipelineConfig(DEMO_MODEL, backend="onnxruntime", threads=1)).close()
    with pytest.raises(EngineError, match="TensorRT"):
        load_or_draw(PipelineConfig(DEMO_MODEL, backend="tensorrt", text_precision="fp8"))
    for half in ("vision_encoder", "text_decoder"):
        shutil.copytree(DEMO_MODEL / half, tmp_path / half)
    with pytest.raises(EngineError, match=r"text_decoder\.onnx is missing"):
        load_or_draw(PipelineConfig(tmp_path, backend="onnxruntime", threads=1))
