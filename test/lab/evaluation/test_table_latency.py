from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ContextOverflowError, EngineError
from litevlm_ros.lab.evaluation.table_accuracy import Given, RowAccuracy
from litevlm_ros.lab.evaluation.table_latency import (
    NOTHING_TO_REPLAY,
    WARM_UP,
    RowLatency,
    measure_latency,
    replayed_answers,
)
from litevlm_ros.lab.evaluation.table_rows import Parts, RenderedViews, TableQuestion, table_questions, table_rows
from litevlm_ros.types import Answer, FinishReason, Speculation, Timings, TokenCounts

ASKED = table_questions(0, 40)
ROWS = table_rows(PipelineConfig(Path("models")), Parts())
CAMERAS = ("front", "back")
GIVEN = [Given(str(index), CAMERAS[: 1 + (index == 1)], 4, 0.5, True) for index in range(len(ASKED))]
"""The second answer is from two views, all others are from one."""
NAMES = [row.name for row in ROWS]


class Timed:
    """Takes twice as many ms as the question has before it, and says three tokens and a stop token."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self.said: list[str] = []
        self.said_without_drafts: list[str] = []

    def answer(self, asked: TableQuestion, given: Given) -> Answer:
        if self.config.token_selection.method == "random":
            raise ContextOverflowError("too long")
        self.said.append(given.text)
        ms = 2.0 * int(given.text)
        timings = Timings(preprocess=1, vision=ms, select=0.25, prefill=5, decode=6, total=ms + 12.25)
        reason = FinishReason.STOP if given.text == "0" else FinishReason.LENGTH
        tokens = TokenCounts(9, 64 * len(given.cameras), 3)
        return Answer("", "", given.cameras, reason, tokens, timings, Speculation(4, 2, 1))

    def answer_without_drafts(self, asked: TableQuestion, given: Given) -> None:
        self.said_without_drafts.append(given.text)


class Models:
    """Loads models, and remembers them and their pipelines."""

    def __init__(self) -> None:
        self.loaded: list[PipelineConfig] = []
        self.pipelines: list[Timed] = []
        self.closed = 0
        self.description, self.load_seconds = "a clock", 1.5

    def load(self, config: PipelineConfig, rendered: RenderedViews) -> Models:
        if config.text_precision == "fp8":
            raise EngineError("no FP8 here")
        self.loaded.append(config)
        return self

    def pipeline(self, config: PipelineConfig) -> Timed:
        self.pipelines.append(Timed(config))
        return self.pipelines[-1]

    def close(self) -> None:
        self.closed += 1


def measure(models: Models, replayed: dict[str, Sequence[Given]]) -> tuple[dict[str, RowLatency], list[str]]:
    rows: dict[str, RowLatency] = {}
    notes: list[str] = []
    measure_latency(ROWS, ASKED, replayed, 3, notes.append, rows.__setitem__, models.load)
    return rows, notes


def test_means_of_new_frames_after_other_questions() -> None:
    models = Models()
    rows, notes = measure(models, dict.fromkeys(NAMES, GIVEN))
    assert list(rows) == NAMES
    base = rows["base"]
    assert (base.questions, base.backend, base.tokens_per_view) == (3, "a clock", 64)
    assert (base.vision_ms, base.select_ms, base.prefill_ms, base.decode_ms) == (2, 0.75, 5, 6)
    assert base.total_ms == pytest.approx(2 + 12.25 + 0.5)
    assert base.decoded == 3 + 2 + 2, "a stop token takes a step, the first token none"
    assert base.token_ms == pytest.approx(18 / 7)
    assert base.accepted == 6
    assert rows["all_fp8"].obstacle == "no FP8 here"
    assert rows["random_tokens"].obstacle == "too long"
    for pipeline in models.pipelines:
        if pipeline.said:
            assert pipeline.said == [str(index) for index in (*range(3, 3 + WARM_UP), 0, 1, 2)]
        assert set(pipeline.said_without_drafts) >= {"1"}, "each number of views, before drafts learn anything"
        assert set(pipeline.said_without_drafts) <= {"0", "1", "2"}
        assert pipeline.config.reuse.frames == 0
        assert pipeline.config.view_selection.method == "off", "the views are given"
    assert models.pipelines[-1].config.speculation.source == "auto"
    assert any("1.5 s" in note for note in notes)


def test_rows_share_a_model_until_one_fails_or_needs_another() -> None:
    models = Models()
    measure(models, dict.fromkeys(NAMES, GIVEN))
    # base to random tokens, and after the failure of these speculation and all
    assert len(models.loaded) == 2
    assert models.closed == 2
    assert models.loaded == [ROWS[0].config] * 2
    assert [pipeline.config for pipeline in models.pipelines][:1] == [
        replace(ROWS[0].config, reuse=replace(ROWS[0].config.reuse, frames=0))
    ]


def test_a_row_without_answers_takes_those_of_the_row_before() -> None:
    accuracy = dict.fromkeys(NAMES, RowAccuracy(obstacle="none"))
    nothing, _ = measure(Models(), replayed_answers(ROWS, accuracy))
    assert {row.obstacle for row in nothing.values()} == {NOTHING_TO_REPLAY}
    accuracy["speculation"] = RowAccuracy(GIVEN)
    replayed = replayed_answers(ROWS, accuracy)
    assert [name for name in NAMES if replayed[name]] == ["speculation", "all", "all_fp8"]
    some, _ = measure(Models(), replayed)
    assert some["base"].obstacle
    assert some["all"].questions == 3
