"""One evaluation: the model and its baselines on the same held-out exercises."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from litevlm_ros.lab.evaluation.answering import Look, Reply, answer, answer_by_kind, blind, commonest_answers, seeing
from litevlm_ros.lab.evaluation.exercises import CAPTION, Exercise, held_out_exercises, training_exercises
from litevlm_ros.pipeline import Pipeline

TRAINING_SCENES = 400
"""Scenes, from training's seed 0 on, that give the majority baseline its answers."""

_SECONDS_BETWEEN_NOTES = 10.0

Notify = Callable[[str], object]
"""Called with a line about the progress now and then."""


@dataclass(frozen=True)
class Evaluation:
    """Replies of the model, and of each baseline by its name, to the same questions. `seconds` is what all took."""

    replies: Sequence[Reply]
    baselines: Mapping[str, Sequence[Reply]]
    seconds: float

    def mean_ms(self) -> dict[str, float]:
        """Mean wall times of the model in ms.

        A caption is asked for first, so its time includes reading the views in prefill; short answers reuse them.
        """
        first = [reply for reply in self.replies if reply.question.kind == CAPTION]
        short = [reply for reply in self.replies if reply.question.kind != CAPTION]
        encoding = [(len(r.exercise.cameras), r.timings.preprocess + r.timings.vision) for r in first]
        return {
            "encoding_one_view": fmean(ms for views, ms in encoding if views == 1),
            "encoding_six_views": fmean(ms for views, ms in encoding if views > 1),
            "caption": fmean(r.timings.prefill + r.timings.decode for r in first),
            "short_answer": fmean(r.timings.prefill + r.timings.decode for r in short),
        }


def evaluate(pipeline: Pipeline, seed: int, scenes: int, notify: Notify) -> Evaluation:
    """Puts every question to the model, to the model shown black, and to the commonest answers of training.

    See `held_out_exercises` for the scenes. Raises ConfigError for those, ContextOverflowError and EngineError.
    """
    started = time.perf_counter()
    exercises = list(held_out_exercises(seed, scenes))

    def replies(look: Look, title: str) -> list[Reply]:
        return list(answer(pipeline, _with_progress(exercises, title, notify), look))

    seen = replies(seeing(pipeline), "model")
    baselines = {
        "majority": list(answer_by_kind(commonest_answers(training_exercises(TRAINING_SCENES)), exercises)),
        "blind": replies(blind(pipeline), "model shown black"),
    }
    return Evaluation(seen, baselines, time.perf_counter() - started)


def _with_progress(exercises: Sequence[Exercise], title: str, notify: Notify) -> Iterator[Exercise]:
    started = noted = time.perf_counter()
    for done, exercise in enumerate(exercises, start=1):
        yield exercise
        now = time.perf_counter()
        if now - noted > _SECONDS_BETWEEN_NOTES:
            noted = now
            left = (now - started) * (len(exercises) - done) / done
            notify(f"{title}: {done} of {len(exercises)} exercises, about {left:.0f} s left")
