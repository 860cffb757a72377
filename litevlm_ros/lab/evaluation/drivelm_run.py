"""Puts the questions of DriveLM's key frames to a model: from all views, and from those that a selector keeps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from litevlm_ros.errors import ContextOverflowError, ImageError
from litevlm_ros.lab.evaluation.drivelm_file import DriveLMQuestion, KeyFrame, LeftOut
from litevlm_ros.lab.evaluation.drivelm_images import read_views
from litevlm_ros.lab.evaluation.drivelm_objects import Wording
from litevlm_ros.lab.evaluation.drivelm_scores import DriveLMScores, score
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Answer, FinishReason, Notify, View, milliseconds_since
from litevlm_ros.vision.view_selection import ViewSelector

STAGES = ("preprocess", "vision", "select", "prefill", "decode", "total")
"""The stages that are timed, by their names in `Timings`."""

_SECONDS_BETWEEN_NOTES = 10.0


@dataclass
class DriveLMRun:
    """The answers of one run by the questions' ids, with objects as the file writes them.

    A question that did not fit into the context has no answer.
    """

    title: str
    answers: dict[str, Answer] = field(default_factory=dict)
    too_long: int = 0

    def scores(self, frames: Sequence[KeyFrame]) -> DriveLMScores:
        """Scores the run on the key frames that were asked about."""
        return score(frames, {name: answer.text for name, answer in self.answers.items()})

    @property
    def cut(self) -> int:
        """The number of answers that ended at the most tokens an answer may have."""
        return sum(answer.finish_reason is FinishReason.LENGTH for answer in self.answers.values())

    def means(self) -> dict[str, float | None]:
        """Returns means over the answers: views, visual tokens, and ms of each stage. They are None without answers."""
        given = list(self.answers.values())
        if not given:
            return dict.fromkeys(("views", "visual_tokens", *STAGES))
        return {
            "views": fmean(len(answer.cameras) for answer in given),
            "visual_tokens": fmean(answer.tokens.visual for answer in given),
            **{stage: fmean(getattr(answer.timings, stage) for answer in given) for stage in STAGES},
        }

    def json(self, frames: Sequence[KeyFrame]) -> dict[str, Any]:
        """Returns all figures but the answers."""
        figures = {"means": self.means(), "too_long": self.too_long, "cut": self.cut}
        return {**self.scores(frames).json(), **figures}


@dataclass(frozen=True)
class Asked:
    """The key frames that were asked about, and a run with all views and one with the chosen views of each question."""

    frames: Sequence[KeyFrame]
    all_views: DriveLMRun
    chosen: DriveLMRun


def ask(
    pipeline: Pipeline,
    selector: ViewSelector,
    wording: Wording,
    frames: Sequence[KeyFrame],
    left_out: LeftOut,
    notify: Notify,
) -> Asked:
    """Puts every question twice, each time about new frames.

    The selector reads the file's words, and the model those of `wording`. Where the selector keeps all views, the one
    answer counts in both runs. The pipeline must select no views itself. A key frame with a damaged picture is left
    out. Raises what `Pipeline.generate` raises, but not ContextOverflowError.
    """
    asking = _Asking(pipeline, selector, wording)
    asked = []
    for frame in _with_progress(frames, notify):
        try:
            views = read_views(frame)
        except ImageError as error:
            left_out.add("key frames with a picture that cannot be read", str(error))
            continue
        asked.append(frame)
        for question in frame.questions:
            asking.put(question, views)
    return Asked(asked, asking.all_views, asking.chosen)


class _Asking:
    """Two runs that grow question by question."""

    def __init__(self, pipeline: Pipeline, selector: ViewSelector, wording: Wording) -> None:
        self._pipeline, self._selector, self._wording = pipeline, selector, wording
        self._warm: set[int] = set()
        self.all_views, self.chosen = DriveLMRun("all views"), DriveLMRun("chosen views")

    def put(self, question: DriveLMQuestion, views: Sequence[View]) -> None:
        started = time.perf_counter()
        cameras = self._selector.select(question.text, [view.camera for view in views])
        select_ms = milliseconds_since(started)
        kept = [view for view in views if view.camera in cameras]
        answer = self._answer(self.all_views, question, views)
        if len(kept) < len(views):
            answer = self._answer(self.chosen, question, kept)
        elif answer is None:
            self.chosen.too_long += 1
        if answer is not None:
            timings = answer.timings
            timings = replace(timings, select=timings.select + select_ms, total=timings.total + select_ms)
            self.chosen.answers[question.id] = replace(answer, timings=timings)

    def _answer(self, run: DriveLMRun, question: DriveLMQuestion, views: Sequence[View]) -> Answer | None:
        """Returns the answer and keeps it in `run`; None if the question does not fit into the context."""
        text = self._wording.question(question.text, views)
        try:
            if len(views) not in self._warm:  # a backend compiles what a number of tiles needs when it first occurs
                self._pipeline.generate(views, text, all_views=True)
                self._warm.add(len(views))
            answer = self._pipeline.generate(views, text, all_views=True)
        except ContextOverflowError:
            run.too_long += 1
            return None
        answer = replace(answer, text=self._wording.answer(answer.text, views))
        run.answers[question.id] = answer
        return answer


def _with_progress(frames: Sequence[KeyFrame], notify: Notify) -> Iterator[KeyFrame]:
    started = noted = time.perf_counter()
    questions = sum(len(frame.questions) for frame in frames)
    done = 0
    for frame in frames:
        yield frame
        done += len(frame.questions)
        now = time.perf_counter()
        if now - noted > _SECONDS_BETWEEN_NOTES and done < questions:
            noted = now
            left = (now - started) * (questions - done) / done
            notify(f"DriveLM: {done} of {questions} questions, about {left:.0f} s left")
