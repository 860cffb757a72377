"""A pipeline that knows the pictures of some exercises by heart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from litevlm_ros.lab.world.exercises import Exercise
from litevlm_ros.lab.world.questions import Question
from litevlm_ros.types import Answer, FinishReason, Timings, TokenCounts, View

Say = Callable[[Exercise, Question], str]


@dataclass(frozen=True, eq=False)
class Memory:
    exercise: Exercise | None
    preprocess_ms: float = 10.0
    vision_ms: float = 20.0


class ScriptedPipeline:
    """Answers with `say` to questions about pictures that it knows, and with "?" to those about others."""

    def __init__(self, exercises: Iterable[Exercise], say: Say) -> None:
        self._known = {_key(exercise.views()): exercise for exercise in exercises}
        self._say = say
        self.encoded = 0

    def encode(self, views: Sequence[View]) -> Memory:
        self.encoded += 1
        return Memory(self._known.get(_key(views)))

    def answer(self, encoded: Memory, text: str) -> Answer:
        said = "?"
        if encoded.exercise:
            asked = next(question for question in encoded.exercise.questions if question.text == text)
            said = self._say(encoded.exercise, asked)
        return Answer(
            said, text, (), FinishReason.STOP, TokenCounts(9, 4, 1), Timings(prefill=3.0, decode=4.0, total=8)
        )


def _key(views: Sequence[View]) -> tuple[tuple[str, bytes], ...]:
    return tuple((view.camera, view.image.tobytes()) for view in views)
