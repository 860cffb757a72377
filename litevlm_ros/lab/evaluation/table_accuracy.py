"""The first half of the table: what each row answers, how much of it is right, and from how many views."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from litevlm_ros.config import PipelineConfig, ReuseConfig, SpeculationConfig
from litevlm_ros.errors import LiteVLMError
from litevlm_ros.lab.evaluation.answering import Reply
from litevlm_ros.lab.evaluation.quantized_model import load_quantized
from litevlm_ros.lab.evaluation.scores import is_right
from litevlm_ros.lab.evaluation.share import Share
from litevlm_ros.lab.evaluation.table_questions import AskedQuestion, Pictures
from litevlm_ros.lab.evaluation.table_rows import TableRow
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Timings
from litevlm_ros.vision.view_selection import ViewSelector, load_view_selector

Load = Callable[[PipelineConfig], Pipeline]
Notify = Callable[[str], object]

_NOTE_EVERY = 500


@dataclass(frozen=True)
class Given:
    """One answer, the cameras that it was given from, its visual tokens, and the ms that choosing the views took.

    `right` is None for a caption.
    """

    text: str
    cameras: tuple[str, ...]
    visual_tokens: int
    choose_ms: float
    right: bool | None


@dataclass(frozen=True)
class RowAccuracy:
    """What a row answered to all questions. Where it cannot run, `obstacle` says why and there are no answers."""

    given: Sequence[Given] = ()
    backend: str = ""
    obstacle: str = ""

    @property
    def outcomes(self) -> list[bool]:
        """Whether each question with a short answer got the right one."""
        return [given.right for given in self.given if given.right is not None]

    @property
    def right(self) -> Share:
        """Of the questions with short answers."""
        return Share.of(self.outcomes)

    @property
    def views(self) -> float:
        """Mean of the views kept for a question."""
        return fmean(len(given.cameras) for given in self.given)

    @property
    def visual_tokens(self) -> float:
        """Mean of those of a question."""
        return fmean(given.visual_tokens for given in self.given)

    @property
    def choose_ms(self) -> float:
        """Mean ms of choosing the views of a question."""
        return fmean(given.choose_ms for given in self.given)


def measure_accuracy(
    rows: Sequence[TableRow], asked: Sequence[AskedQuestion], notify: Notify, load: Load = load_quantized
) -> dict[str, RowAccuracy]:
    """Puts all questions to each row, by its name.

    Rows that differ in nothing but speed share their answers: drafts and reuse change none.
    """
    measured: dict[str, RowAccuracy] = {}
    known: list[tuple[PipelineConfig, RowAccuracy]] = []
    for row in rows:
        config = replace(row.config, speculation=SpeculationConfig(), reuse=ReuseConfig())
        same = next((accuracy for other, accuracy in known if other == config), None)
        if same is None:
            notify(f"accuracy: {row.title}")
            same = _measure(config, asked, notify, load)
            known.append((config, same))
        measured[row.name] = same
    return measured


def _measure(config: PipelineConfig, asked: Sequence[AskedQuestion], notify: Notify, load: Load) -> RowAccuracy:
    try:
        selector = load_view_selector(config.view_selection, config.model_dir)
        with contextlib.closing(load(config)) as pipeline:
            given, pictures = [], Pictures()
            for one in asked:
                given.append(_ask(pipeline, one, pictures, selector))
                if len(given) % _NOTE_EVERY == 0:
                    notify(f"  {len(given)} of {len(asked)}")
            return RowAccuracy(given, pipeline.backend.description)
    except LiteVLMError as error:
        return RowAccuracy(obstacle=str(error))


def _ask(pipeline: Pipeline, one: AskedQuestion, pictures: Pictures, selector: ViewSelector | None) -> Given:
    answer = pipeline.generate(pictures.of(one), one.question.text)
    choose_ms = 0.0
    if selector is not None:
        started = time.perf_counter()
        selector.select(one.question.text, one.exercise.cameras)
        choose_ms = 1e3 * (time.perf_counter() - started)
    right = is_right(Reply(one.exercise, one.question, answer.text, Timings())) if one.scored else None
    return Given(answer.text, answer.cameras, answer.tokens.visual, choose_ms, right)
