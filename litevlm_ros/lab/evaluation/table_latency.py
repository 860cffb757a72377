"""The latency half of the table: the time of each stage, on this machine and for any model directory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from litevlm_ros.config import PipelineConfig, ReuseConfig, ViewSelectionConfig
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.evaluation.replay import ReplayingModel, ReplayingPipeline, loading
from litevlm_ros.lab.evaluation.table_accuracy import Given, RowAccuracy
from litevlm_ros.lab.evaluation.table_rows import RenderedViews, TableQuestion, TableRow
from litevlm_ros.types import Answer, FinishReason, Notify

WARM_UP = 26
"""Number of further questions that are put first, from which drafts learn and which take memory that is taken once."""
RENDERED_EXERCISES = 16
"""Exercises whose views are kept for the next row: those of 200 questions."""

NOTHING_TO_REPLAY = "no row has answers to replay"
"""The obstacle of a row where neither it nor a row before it could answer."""

Asked = tuple[TableQuestion, Given]
"""A question, and the answer that is replayed."""


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

    @classmethod
    def of(cls, answers: Sequence[Answer], choose_ms: Sequence[float], backend: str) -> RowLatency:
        """Takes the means of `answers`, whose views were chosen in `choose_ms` beforehand."""
        timings = [answer.timings for answer in answers]
        # A stop token takes a step as well, and prefill gives the first token.
        decoded = sum(answer.tokens.generated - (answer.finish_reason is not FinishReason.STOP) for answer in answers)
        return cls(
            questions=len(answers),
            backend=backend,
            tokens_per_view=sum(answer.tokens.visual for answer in answers) / sum(len(one.cameras) for one in answers),
            preprocess_ms=fmean(timing.preprocess for timing in timings),
            vision_ms=fmean(timing.vision for timing in timings),
            select_ms=fmean(choose_ms) + fmean(timing.select for timing in timings),
            prefill_ms=fmean(timing.prefill for timing in timings),
            token_ms=sum(timing.decode for timing in timings) / max(1, decoded),
            decode_ms=fmean(timing.decode for timing in timings),
            total_ms=fmean(choose_ms) + fmean(timing.total for timing in timings),
            decoded=decoded,
            accepted=sum(answer.speculation.accepted for answer in answers),
        )


Keep = Callable[[str, RowLatency], object]
"""A function that is given each row by its name as soon as it is measured."""


def replayed_config(row: TableRow) -> PipelineConfig:
    """Returns the settings that a row is timed with: views are chosen already, and each question has new frames."""
    return replace(row.config, view_selection=ViewSelectionConfig(), reuse=ReuseConfig(frames=0))


def replayed_answers(rows: Iterable[TableRow], accuracy: Mapping[str, RowAccuracy]) -> dict[str, Sequence[Given]]:
    """Returns what each row repeats, by its name: its own answers, or those of the row before it that has some."""
    replayed: dict[str, Sequence[Given]] = {}
    given: Sequence[Given] = ()
    for row in rows:
        given = accuracy[row.name].given or given
        replayed[row.name] = given
    return replayed


def measure_latency(
    rows: Sequence[TableRow],
    asked: Sequence[TableQuestion],
    replayed: Mapping[str, Sequence[Given]],
    count: int,
    notify: Notify,
    keep: Keep,
    load: Callable[[PipelineConfig, RenderedViews], ReplayingModel] = ReplayingModel,
) -> None:
    """Times the first `count` questions in each row, each about new frames and answered as in `replayed`.

    Neighbouring rows that differ only in the pipeline's settings share a loaded model.
    """
    with contextlib.closing(_Models(load, notify)) as models:
        for row in rows:
            if not replayed[row.name]:
                keep(row.name, RowLatency(obstacle=NOTHING_TO_REPLAY))
                continue
            notify(f"latency: {row.title}")
            started = time.monotonic()
            pairs = list(zip(asked, replayed[row.name], strict=True))
            try:
                pipeline, backend = models.pipeline(replayed_config(row))
                measured = _measure(pipeline, pairs, count, backend)
            except LiteVLMError as error:
                models.close()  # whatever has failed may be broken for the next row
                measured = RowLatency(obstacle=str(error))
            else:
                notify(f"  {measured.total_ms:.1f} ms an answer; the row took {time.monotonic() - started:.1f} s")
            keep(row.name, measured)


class _Models:
    """One loaded model at a time, and the views that all of them see."""

    def __init__(self, load: Callable[[PipelineConfig, RenderedViews], ReplayingModel], notify: Notify) -> None:
        self._load, self._notify = load, notify
        self._rendered = RenderedViews(RENDERED_EXERCISES)
        self._model: ReplayingModel | None = None
        self._config: PipelineConfig | None = None

    def pipeline(self, config: PipelineConfig) -> tuple[ReplayingPipeline, str]:
        """Returns a pipeline of `config` and the description of its backend, and loads a model if it needs another."""
        if self._model is None or self._config != loading(config):
            self.close()
            self._model, self._config = self._load(loading(config), self._rendered), loading(config)
            self._notify(f"  {self._model.description}: loaded in {self._model.load_seconds:.1f} s")
        return self._model.pipeline(config), self._model.description

    def close(self) -> None:
        """Releases the model, if one is loaded."""
        model, self._model = self._model, None
        if model is not None:
            model.close()


def _measure(pipeline: ReplayingPipeline, pairs: Sequence[Asked], count: int, backend: str) -> RowLatency:
    timed = pairs[:count]
    for question, given in _extremes(timed):
        pipeline.answer_without_drafts(question, given)
    # Not the questions that are timed: their answers would be drafts.
    for question, given in warm_up(pairs, count):
        pipeline.answer(question, given)
    answers = [pipeline.answer(question, given) for question, given in timed]
    return RowLatency.of(answers, [given.choose_ms for _, given in timed], backend)


def warm_up(pairs: Sequence[Asked], count: int) -> Sequence[Asked]:
    """Returns WARM_UP questions that are put before the first `count` of `pairs` are timed."""
    return pairs[count : count + WARM_UP] or pairs[:WARM_UP]


def _extremes(pairs: Sequence[Asked]) -> list[Asked]:
    """Returns the shortest and the longest question for each number of views.

    A backend compiles what a number of tiles or tokens needs when it first occurs, which takes up to seconds.
    """
    by_views: dict[int, list[Asked]] = {}
    for pair in pairs:
        by_views.setdefault(len(pair[1].cameras), []).append(pair)
    return [
        choose(group, key=lambda pair: len(pair[0].question.text))
        for group in by_views.values()
        for choose in (min, max)
    ]
