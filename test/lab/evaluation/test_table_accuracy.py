from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ContextOverflowError, EngineError
from litevlm_ros.lab.evaluation.table_accuracy import measure_accuracy
from litevlm_ros.lab.evaluation.table_questions import six_view_questions
from litevlm_ros.lab.evaluation.table_rows import Parts, table_rows
from litevlm_ros.types import Answer, FinishReason, Timings, TokenCounts, View

ASKED = six_view_questions(0, 5)
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
    rows = measure_accuracy(ROWS, ASKED, notes.append, load)
    assert list(rows) == [row.name for row in ROWS]
    base, views = rows["base"], rows["view_selection"]
    assert (base.right.hits, base.right.total) == (5, 5)
    assert (base.views, base.visual_tokens, base.choose_ms) == (6, 24, 0)
    assert (views.views, views.visual_tokens) == (1, 4)
    assert views.choose_ms > 0
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
