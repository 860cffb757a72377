"""Answers to exercises: by a model, by a model that is shown black, and by the commonest answer of each kind."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from litevlm_ros.lab.evaluation.exercises import Exercise
from litevlm_ros.lab.world.questions import Question
from litevlm_ros.pipeline import EncodedViews, Pipeline
from litevlm_ros.types import Timings, View

Look = Callable[[Exercise], EncodedViews]
"""What a model is shown of an exercise's views."""

_BLACK = np.zeros((480, 640, 3), np.uint8)


@dataclass(frozen=True)
class Reply:
    """What was answered to one question of an exercise.

    The first reply of an exercise has the time of encoding its views and of reading them in prefill; the others reuse
    both.
    """

    exercise: Exercise
    question: Question
    text: str
    timings: Timings


def answer(pipeline: Pipeline, exercises: Iterable[Exercise], look: Look) -> Iterator[Reply]:
    """The model's replies, in order. Views are encoded once an exercise. Raises what `Pipeline.answer` raises."""
    for exercise in exercises:
        encoded = look(exercise)
        preprocess_ms, vision_ms = encoded.preprocess_ms, encoded.vision_ms
        for question in exercise.questions:
            given = pipeline.answer(encoded, question.text)
            timings = replace(given.timings, preprocess=preprocess_ms, vision=vision_ms)
            yield Reply(exercise, question, given.text, timings)
            preprocess_ms = vision_ms = 0.0


def seeing(pipeline: Pipeline) -> Look:
    """Shows the views."""
    return lambda exercise: pipeline.encode(exercise.views())


def blind(pipeline: Pipeline) -> Look:
    """Shows black instead of each view, through the same encoder.

    Camera names, the number of visual tokens and the questions stay, so what is still right comes from the questions
    and from how often things occur.
    """

    @functools.cache
    def encode(cameras: tuple[str, ...]) -> EncodedViews:
        return pipeline.encode([View(camera, _BLACK) for camera in cameras])

    return lambda exercise: encode(exercise.cameras)


def commonest_answers(exercises: Iterable[Exercise]) -> dict[str, str]:
    """The commonest true answer for each kind of question, captions too."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for exercise in exercises:
        for question in exercise.questions:
            answers[question.kind][question.answer] += 1
    return {kind: counts.most_common(1)[0][0] for kind, counts in answers.items()}


def answer_by_kind(answers: Mapping[str, str], exercises: Iterable[Exercise]) -> Iterator[Reply]:
    """Replies with the one answer that `answers` has for a kind, and with nothing to kinds that it lacks."""
    for exercise in exercises:
        for question in exercise.questions:
            yield Reply(exercise, question, answers.get(question.kind, ""), Timings())
