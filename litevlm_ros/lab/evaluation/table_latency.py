"""The latency half of the table: the time of each stage, on this machine and for any model directory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from litevlm_ros.config import PipelineConfig, ReuseConfig, ViewSelectionConfig
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.evaluation.replay import ReplayingDecoder
from litevlm_ros.lab.evaluation.table_accuracy import Given, RowAccuracy
from litevlm_ros.lab.evaluation.table_rows import RenderedViews, TableQuestion, TableRow
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.runtime.load import load_backend
from litevlm_ros.text.tokenizer import TextTokenizer
from litevlm_ros.types import Answer, FinishReason, Notify

WARM_UP = 26
"""Number of further questions that are put first: shapes are compiled, and memory is taken, when they first occur."""


@dataclass(frozen=True)
class RowLatency:
    """Mean times of a row, in ms for one answer but for `token_ms`, which is for one decoded token.

    `select_ms` is the time for choosing views and tokens, `total_ms` that of all stages together. `accepted` counts the
    drafted tokens that were right, among all `decoded` ones. Where the row cannot run, `obstacle` has the reason.
    """

    questions: int = 0
    backend: str = ""
    tokens_per_view: float = 0.0
    preprocess_ms: float = 0.0
    vision_ms: float = 0.0
    select_ms: float = 0.0
    prefill_ms: float = 0.0
    token_ms: float = 0.0
    decode_ms: float = 0.0
    total_ms: float = 0.0
    decoded: int = 0
    accepted: int = 0
    obstacle: str = ""


class ReplayingPipeline:
    """A pipeline that repeats known answers from known views, and takes as long as if it had found them."""

    def __init__(self, config: PipelineConfig) -> None:
        """Loads the model of `config`. Raises ConfigError, CheckpointError or EngineError."""
        model, tokenizer = ModelConfig.from_directory(config.model_dir), TextTokenizer.from_directory(config.model_dir)
        backend = load_backend(config, model)
        self._text = ReplayingDecoder(backend.text)
        self._pipeline = Pipeline(config, model, tokenizer, replace(backend, text=self._text))
        self._rendered = RenderedViews()
        self._stop = min(tokenizer.stop_ids)
        self.description = backend.description

    def answer(self, asked: TableQuestion, given: Given) -> Answer:
        """Repeats `given` as the answer. Raises what `Pipeline.generate` raises."""
        self._text.say([*self._pipeline.tokenizer.encode(given.text), self._stop])
        views = [replace(view, frame=None) for view in self._rendered.of(asked) if view.camera in given.cameras]
        return self._pipeline.generate(views, asked.question.text, all_views=True)

    def close(self) -> None:
        """Releases the model's memory."""
        self._pipeline.close()


def measure_latency(
    rows: Sequence[TableRow],
    asked: Sequence[TableQuestion],
    accuracy: Mapping[str, RowAccuracy],
    count: int,
    notify: Notify,
    load: Callable[[PipelineConfig], ReplayingPipeline] = ReplayingPipeline,
) -> dict[str, RowLatency]:
    """Times the first `count` questions in each row, each about new frames and answered as in `accuracy`.

    Returns the times by the row's name. A row that could not answer in `accuracy` is given the views and texts of the
    row before it that could.
    """
    measured: dict[str, RowLatency] = {}
    answered = RowAccuracy()
    for row in rows:
        if accuracy[row.name].given:
            answered = accuracy[row.name]
        if not answered.given:
            measured[row.name] = RowLatency(obstacle="no row has answers to replay")
            continue
        notify(f"latency: {row.title}")
        # Views are chosen already, and each question stands for a new frame.
        config = replace(row.config, view_selection=ViewSelectionConfig(), reuse=ReuseConfig(frames=0))
        try:
            with contextlib.closing(load(config)) as pipeline:
                measured[row.name] = _measure(pipeline, asked, answered, count)
        except LiteVLMError as error:
            measured[row.name] = RowLatency(obstacle=str(error))
    return measured


def _measure(
    pipeline: ReplayingPipeline, asked: Sequence[TableQuestion], answered: RowAccuracy, count: int
) -> RowLatency:
    pairs = list(zip(asked, answered.given, strict=True))
    # Not the questions that are timed: their answers would be drafts.
    for question, given in (pairs[count : count + WARM_UP]) or pairs[:WARM_UP]:
        pipeline.answer(question, given)
    answers = [pipeline.answer(question, given) for question, given in pairs[:count]]
    timings = [answer.timings for answer in answers]
    # A stop token takes a step as well, and prefill gives the first token.
    decoded = sum(answer.tokens.generated - (answer.finish_reason is not FinishReason.STOP) for answer in answers)
    choose_ms = fmean(given.choose_ms for _, given in pairs[:count])
    return RowLatency(
        questions=len(answers),
        backend=pipeline.description,
        tokens_per_view=sum(answer.tokens.visual for answer in answers) / sum(len(one.cameras) for one in answers),
        preprocess_ms=fmean(timing.preprocess for timing in timings),
        vision_ms=fmean(timing.vision for timing in timings),
        select_ms=choose_ms + fmean(timing.select for timing in timings),
        prefill_ms=fmean(timing.prefill for timing in timings),
        token_ms=sum(timing.decode for timing in timings) / max(1, decoded),
        decode_ms=fmean(timing.decode for timing in timings),
        total_ms=choose_ms + fmean(timing.total for timing in timings),
        decoded=decoded,
        accepted=sum(answer.speculation.accepted for answer in answers),
    )
