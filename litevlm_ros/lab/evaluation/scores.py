"""How much of the replies is right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from litevlm_ros.lab.evaluation.answering import Reply
from litevlm_ros.lab.evaluation.exercises import CAPTION
from litevlm_ros.lab.evaluation.share import Share
from litevlm_ros.lab.world.captions import describe, judge
from litevlm_ros.lab.world.questions import Question
from litevlm_ros.lab.world.scene import HELD_OUT_CONDITION, HELD_OUT_USERS

_NOTHING = Share(0, 0)


@dataclass(frozen=True)
class CaptionScore:
    """Of captions.

    `truth`: true ones of the statements made. `coverage`: statements made of those due. `exact`: captions true and
    complete.
    """

    truth: Share
    coverage: Share
    exact: Share


@dataclass(frozen=True)
class HeldOutScore:
    """Only what concerns the kind-and-colour combinations that training leaves out, and the held-out condition.

    `answers`: short answers where the question, or it and its answer together, name such a combination. `truth`: true
    ones of the caption statements about one. `coverage`: road users of such a combination in the described views that
    the caption states right. `condition`: captions with the right opening, in scenes of the held-out weather and time.
    """

    answers: Share
    truth: Share
    coverage: Share
    condition: Share


@dataclass(frozen=True)
class Score:
    """Of some replies. `answers` are the short ones, `kinds` the same for each kind of question, by name."""

    answers: Share
    kinds: dict[str, Share]
    captions: CaptionScore
    held_out: HeldOutScore


SPLITS: dict[str, Callable[[Reply], bool]] = {
    "seen": lambda reply: not reply.exercise.unseen,
    "unseen": lambda reply: reply.exercise.unseen,
    "one_view": lambda reply: len(reply.exercise.cameras) == 1,
    "six_views": lambda reply: len(reply.exercise.cameras) > 1,
}
"""Which replies belong to a part of the evaluation."""


def score(replies: Iterable[Reply]) -> Score:
    """Scores replies to short questions and captions."""
    short: list[Reply] = []
    captions: list[Reply] = []
    for reply in replies:
        (captions if reply.question.kind == CAPTION else short).append(reply)
    kinds: dict[str, Share] = {}
    for reply in short:
        kinds[reply.question.kind] = kinds.get(reply.question.kind, _NOTHING) + Share.of([is_right(reply)])
    return Score(
        answers=sum(kinds.values(), _NOTHING),
        kinds=dict(sorted(kinds.items())),
        captions=_caption_score(captions),
        held_out=_held_out_score(short, captions),
    )


def is_right(reply: Reply) -> bool:
    """Whether a short answer is the true one, upper and lower case alike, or a caption true and complete."""
    if reply.question.kind == CAPTION:
        return _caption_score([reply]).exact.hits == 1
    return reply.text.strip().casefold() == reply.question.answer.casefold()


def concerns_held_out(question: Question) -> bool:
    """Whether a question, or it and its answer together, name a combination that training leaves out.

    "What colour is the bus?" does if the answer is "red".
    """
    words = set(re.findall(r"\w+", f"{question.text} {question.answer}".lower()))
    return any({kind.value, colour} <= words for kind, colour in HELD_OUT_USERS)


def _caption_score(replies: Iterable[Reply]) -> CaptionScore:
    truth = coverage = exact = _NOTHING
    for reply in replies:
        verdict = judge(reply.text, reply.exercise.scene, *reply.question.cameras)
        truth += Share(verdict.true, verdict.statements)
        coverage += Share(verdict.covered, verdict.present)
        exact += Share.of([verdict.true == verdict.statements and verdict.covered == verdict.present])
    return CaptionScore(truth, coverage, exact)


def _held_out_score(short: Iterable[Reply], captions: Iterable[Reply]) -> HeldOutScore:
    answers = Share.of(is_right(reply) for reply in short if concerns_held_out(reply.question))
    truth = coverage = condition = _NOTHING
    for reply in captions:
        scene, (camera,) = reply.exercise.scene, reply.question.cameras
        users = scene.views[camera].users
        due = Counter(describe(user) for user in users if (user.kind, user.colour) in HELD_OUT_USERS)
        stated = Counter(clause for clause in _clauses(reply.text) if _names_held_out(clause))
        right = (due & stated).total()
        truth += Share(right, stated.total())
        coverage += Share(right, due.total())
        if (scene.weather, scene.time) == HELD_OUT_CONDITION:
            condition += Share.of([_opening(reply.text) == _opening(reply.question.answer)])
    return HeldOutScore(answers, truth, coverage, condition)


def _clauses(text: str) -> list[str]:
    return [clause.strip() for clause in re.split(r"[.,]", text.lower())]


def _opening(text: str) -> str:
    return text.split(".")[0].strip().casefold()


def _names_held_out(clause: str) -> bool:
    return any(f"{colour} {kind.value}" in clause for kind, colour in HELD_OUT_USERS)
