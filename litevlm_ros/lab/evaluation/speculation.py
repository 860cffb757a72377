"""What speculation does for captions of a camera that sees the same scene for a while, and for short answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from litevlm_ros.lab.evaluation.exercises import CAPTION, held_out_exercises
from litevlm_ros.lab.world.render import render
from litevlm_ros.lab.world.scene import FIRST_HELD_OUT_SEED, generate
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Answer, View

CAMERA = "front"
CAPTION_PROMPT = "Describe the scene."
FRAMES = 4
SECONDS_BETWEEN_FRAMES = 1.0


@dataclass(frozen=True)
class DecodeRates:
    """Of some answers together. Shares and means are 0 where there is nothing to take them of."""

    answers: int
    tokens: int
    ms_per_token: float
    """Of decoding, behind the token that prefill gives."""
    ms_per_answer: float
    """The same, the token that ends it included."""
    drafted: int
    acceptance: float
    """Share of drafted tokens that were right."""
    tokens_per_verification: float
    """How far one call of the decoder brought an answer, where it checked a draft."""

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> DecodeRates:
        """Adds up what the answers say about themselves."""
        given = list(answers)
        tokens = sum(answer.tokens.generated for answer in given)
        decoded = sum(max(0, answer.tokens.generated - 1) for answer in given)
        decode_ms = sum(answer.timings.decode for answer in given)
        drafted = sum(answer.speculation.drafted for answer in given)
        accepted = sum(answer.speculation.accepted for answer in given)
        verifications = sum(answer.speculation.verifications for answer in given)
        return cls(
            answers=len(given),
            tokens=tokens,
            ms_per_token=decode_ms / max(1, decoded),
            ms_per_answer=decode_ms / max(1, len(given)),
            drafted=drafted,
            acceptance=accepted / max(1, drafted),
            tokens_per_verification=(accepted + verifications) / verifications if verifications else 0.0,
        )


Comparison = dict[str, tuple[DecodeRates, int]]
"""For each pipeline its rates, and how many of its texts are not the first pipeline's."""

Course = Iterator[tuple[Sequence[View], Sequence[str]]]
"""Views, and the questions about them."""


def caption_course(scenes: int, frames: int = FRAMES, seed: int = 0) -> Course:
    """Captions of one camera that sees each of `scenes` held-out scenes for `frames` frames, then the next one."""
    for number in range(scenes):
        scene = generate(FIRST_HELD_OUT_SEED + seed + number, unseen=False)
        for frame in range(frames):
            image = render(scene, CAMERA, phase=frame * SECONDS_BETWEEN_FRAMES)
            yield [View(CAMERA, image)], [CAPTION_PROMPT]


def short_answer_course(scenes: int, seed: int = 0) -> Course:
    """Short questions about one view and about all views of `scenes` held-out scenes."""
    for exercise in held_out_exercises(seed, scenes):
        yield exercise.views(), [question.text for question in exercise.questions if question.kind != CAPTION]


def follow(pipelines: Mapping[str, Pipeline], course: Course) -> Comparison:
    """Puts each question to each pipeline in turn, so that all of them have the machine as busy as it is."""
    answers: dict[str, list[Answer]] = {name: [] for name in pipelines}
    for views, questions in course:
        for name, pipeline in pipelines.items():
            encoded = pipeline.encode(views)
            answers[name] += [pipeline.answer(encoded, question) for question in questions]
    first = next(iter(answers.values()))
    return {
        name: (DecodeRates.of(given), sum(a.text != b.text for a, b in zip(given, first, strict=True)))
        for name, given in answers.items()
    }
