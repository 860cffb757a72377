from __future__ import annotations

from pathlib import Path

import pytest

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import EngineError
from litevlm_ros.lab.evaluation.table_accuracy import Given, RowAccuracy
from litevlm_ros.lab.evaluation.table_latency import WARM_UP, measure_latency
from litevlm_ros.lab.evaluation.table_rows import Parts, TableQuestion, table_questions, table_rows
from litevlm_ros.types import Answer, FinishReason, Speculation, Timings, TokenCounts

ASKED = table_questions(0, 40)
ROWS = table_rows(PipelineConfig(Path("models")), Parts())
ANSWERED = RowAccuracy([Given(str(index), ("front",), 4, 0.5, True) for index in range(len(ASKED))])


class Timed:
    """Takes twice as many ms as the question has before it, and says three tokens and a stop token."""

    description = "a clock"

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self.said: list[str] = []
        self.closed = False

    def answer(self, asked: TableQuestion, given: Given) -> Answer:
        self.said.append(given.text)
        ms = 2.0 * int(given.text)
        timings = Timings(preprocess=1, vision=ms, select=0.25, prefill=5, decode=6, total=ms + 12.25)
        reason = FinishReason.STOP if given.text == "0" else FinishReason.LENGTH
        return Answer("", "", given.cameras, reason, TokenCounts(9, 64, 3), timings, Speculation(4, 2, 1))

    def close(self) -> None:
        self.closed = True


def test_means_of_new_frames_after_other_questions() -> None:
    loaded: list[Timed] = []

    def load(config: PipelineConfig) -> Timed:
        if config.text_precision == "fp8":
            raise EngineError("no FP8 here")
        loaded.append(Timed(config))
        return loaded[-1]

    accuracy = dict.fromkeys((row.name for row in ROWS), ANSWERED)
    rows = measure_latency(ROWS, ASKED, accuracy, 3, lambda line: None, load)
    base = rows["base"]
    assert (base.questions, base.backend, base.tokens_per_view) == (3, "a clock", 64)
    assert (base.vision_ms, base.select_ms, base.prefill_ms, base.decode_ms) == (2, 0.75, 5, 6)
    assert base.total_ms == pytest.approx(2 + 12.25 + 0.5)
    assert base.decoded == 3 + 2 + 2, "a stop token takes a step, the first token none"
    assert base.token_ms == pytest.approx(18 / 7)
    assert base.accepted == 6
    assert rows["all_fp8"].obstacle == "no FP8 here"
    assert all(pipeline.closed for pipeline in loaded)
    for pipeline in loaded:
        assert pipeline.said == [str(index) for index in (*range(3, 3 + WARM_UP), 0, 1, 2)]
        assert pipeline.config.reuse.frames == 0
        assert pipeline.config.view_selection.method == "off", "the views are given"
    assert loaded[-1].config.speculation.source == "auto"


def test_a_row_without_answers_takes_those_of_the_row_before() -> None:
    accuracy = dict.fromkeys((row.name for row in ROWS), RowAccuracy(obstacle="none"))
    nothing = measure_latency(ROWS, ASKED, accuracy, 3, lambda line: None, Timed)
    assert {row.obstacle for row in nothing.values()} == {"no row has answers to replay"}
    accuracy["all"] = ANSWERED
    some = measure_latency(ROWS, ASKED, accuracy, 3, lambda line: None, Timed)
    assert some["base"].obstacle
    assert some["all_fp8"].questions == 3
