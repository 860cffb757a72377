"""Accuracy and match as DriveLM's challenge scores them (`challenge/evaluation.py`, github.com/OpenDriveLab/DriveLM).

Answers refer to objects as '<c1,CAM_BACK,1088.3,497.5>', in pixels of the 1600x900 picture. The challenge reads all
numbers with a decimal point as coordinates, two by two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from litevlm_ros.lab.evaluation.drivelm_file import ACCURACY_TAG, MATCH_TAG, DriveLMQuestion, KeyFrame
from litevlm_ros.lab.evaluation.scores import Share

NEAR_PIXELS = 16.0
"""An object is found if the distances in x and in y, added up, are below this."""

Point = tuple[float, float]

_NUMBER = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Match:
    """The objects of the true answer that an answer found, and their F1 from 0 to 1."""

    found: frozenset[Point]
    f1: float


@dataclass
class DriveLMScores:
    """Scores of one run. The challenge counts a question only if its objects were found; `all_` has every question.

    `accuracy` and `all_accuracy` have an outcome for each question, in order, `f1` and `all_f1` a value from 0 to 1.
    """

    accuracy: list[bool] = field(default_factory=list)
    all_accuracy: list[bool] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)
    all_f1: list[float] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """Returns the shares of right answers with their intervals, and the means of F1 from 0 to 1."""
        return {
            "accuracy": Share.of(self.accuracy).json(),
            "accuracy_all": Share.of(self.all_accuracy).json(),
            "match": {"f1": mean(self.f1), "of": len(self.f1)},
            "match_all": {"f1": mean(self.all_f1), "of": len(self.all_f1)},
        }


def mean(values: list[float]) -> float | None:
    """Returns the mean; None if there are no values."""
    return fmean(values) if values else None


def points(text: str) -> list[Point]:
    """Returns the coordinates in a text. A number without a second one is dropped."""
    numbers = [float(number) for number in _NUMBER.findall(text)]
    return list(zip(numbers[::2], numbers[1::2], strict=False))


def match(answer: str, truth: str) -> Match:
    """Gives each object of the answer, in order, the nearest true one that is left. Far ones are false.

    Naming an object twice therefore costs precision. Without any object in one of the two, F1 is 0.
    """
    left, told = points(truth), points(answer)
    true, found = len(left), set()
    hits = 0
    for x, y in told:
        distances = [abs(x - other[0]) + abs(y - other[1]) for other in left]
        if distances and min(distances) < NEAR_PIXELS:
            found.add(left.pop(distances.index(min(distances))))
            hits += 1
    return Match(frozenset(found), 2 * hits / (len(told) + true) if hits else 0.0)


def score(frames: Iterable[KeyFrame], given: Mapping[str, str]) -> DriveLMScores:
    """Scores the texts that were given, by the questions' ids; a question without one has an empty answer."""
    scores = DriveLMScores()
    for frame in frames:
        found: frozenset[Point] = frozenset()
        for question in frame.questions:
            text = given.get(question.id, "")
            if question.first:
                found = match(text, question.answer).found
            _add(scores, question, text, counts=question.first or found.issuperset(points(question.text)))
    return scores


def _add(scores: DriveLMScores, question: DriveLMQuestion, text: str, *, counts: bool) -> None:
    if ACCURACY_TAG in question.tags:
        right = text == question.answer  # to the letter: 'A.' is not 'A'
        scores.all_accuracy.append(right)
        if counts:
            scores.accuracy.append(right)
    if MATCH_TAG in question.tags:
        f1 = match(text, question.answer).f1
        scores.all_f1.append(f1)
        if counts:
            scores.f1.append(f1)
