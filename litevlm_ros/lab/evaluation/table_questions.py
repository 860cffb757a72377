"""The questions of the table: about six views of held-out scenes, the same for every row and on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.exercises import CAPTION, Exercise, held_out_exercises
from litevlm_ros.lab.world.questions import Question
from litevlm_ros.types import View


@dataclass(frozen=True)
class AskedQuestion:
    """A question about the views of an exercise, which has a `number`."""

    number: int
    exercise: Exercise
    question: Question

    @property
    def scored(self) -> bool:
        """Whether its answer is right or wrong, other than a caption's."""
        return self.question.kind != CAPTION


def six_view_questions(seed: int, short: int) -> list[AskedQuestion]:
    """`short` questions with short answers and, before every twelve, a request for a caption.

    Raises ConfigError.
    """
    if short < 1:
        raise ConfigError(f"--questions is {short}; allowed: from 1. Use at least 2000 for a figure to rely on")
    asked: list[AskedQuestion] = []
    for number, exercise in enumerate(held_out_exercises(seed, short)):
        if len(exercise.cameras) > 1:
            for question in exercise.questions:
                asked.append(AskedQuestion(number, exercise, question))
                short -= question.kind != CAPTION
                if not short:
                    return asked
    raise AssertionError("an exercise has at least one short question")


class Pictures:
    """Draws views, and keeps those drawn last."""

    def __init__(self) -> None:
        self._number = -1
        self._views: Sequence[View] = ()

    def of(self, asked: AskedQuestion) -> Sequence[View]:
        """Six views that say which frame they are."""
        if asked.number != self._number:
            self._views = [replace(view, frame=(asked.number, view.camera)) for view in asked.exercise.views()]
            self._number = asked.number
        return self._views
