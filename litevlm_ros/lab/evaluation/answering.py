"""Replies to exercises: from a model, from a model that is shown black, and from the commonest answer of each kind."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from litevlm_ros.lab.world.exercises import Exercise
from litevlm_ros.lab.world.questions import Question
from litevlm_ros.pipeline import EncodedViews, Pipeline
from litevlm_ros.types import Timings, View

Look = Callable[[Exercise], EncodedViews]
"""A function that encodes what a model is to see of an exercise."""

_BLACK = np.zeros((480, 640, 3), np.uint8)


@dataclass(frozen=True)
class Reply:
    """The text that was given as the answer to one question of an exercise.

    The timings of an exercise's first reply include encoding its views and reading them in prefill; the others reuse
    both.
    """

    exercise: Exercise
    question: Question
    text: str
    timings: Timings


def answer(pipeline: Pipeline, exercises: Iterable[Exercise], look: Look) -> Iterator[Reply]:
    """Yields the model's replies in order. Views are encoded once an exercise. Raises what `Pipeline.answer` raises."""
    for exercise in exercises:
        encoded = look(exercise)
        preprocess_ms, vision_ms = encoded.preprocess_ms, encoded.vision_ms
        for question in exercise.questions:
            given = pipeline.answer(encoded, question.text)
            timings = replace(given.timings, preprocess=preprocess_ms, vision=vision_ms)
            yield Reply(exercise, question, given.text, timings)
            preprocess_ms = vision_ms = 0.0


def seeing(pipeline: Pipeline) -> Look:
    """Returns a function that shows the views as they are."""
    return lambda exercise: pipeline.encode(exercise.views())


def blind(pipeline: Pipeline) -> Look:
    """Returns a function that shows black instead of each view, through the same encoder.

    Camera names, the number of visual tokens and the questions stay, so answers that are still right come from the
    questions and from how often things occur.
    """

    @functools.cache
    def encode(cameras: tuple[str, ...]) -> EncodedViews:
        return pipeline.encode([View(camera, _BLACK) for camera in cameras])

    return lambda exercise: encode(exercise.cameras)


def commonest_answers(exercises: Iterable[Exercise]) -> dict[str, str]:
    """Returns the commonest true answer to each kind of question, captions too."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for exercise in exercises:
        for question in exercise.questions:
            answers[question.kind][question.answer] += 1
    return {kind: counts.most_common(1)[0][0] for kind, counts in answers.items()}


def answer_by_kind(answers: Mapping[str, str], exercises: Iterable[Exercise]) -> Iterator[Reply]:
    """Yields replies with the one text that `answers` has for a kind of question, empty for kinds that it lacks."""
    for exercise in exercises:
        for question in exercise.questions:
            yield Reply(exercise, question, answers.get(question.kind, ""), Timings())
