"""The share of replies that are right: proportions with their confidence intervals, and scores of captions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from litevlm_ros.lab.evaluation.answering import Reply
from litevlm_ros.lab.world.captions import describe_user, judge
from litevlm_ros.lab.world.exercises import CAPTION
from litevlm_ros.lab.world.questions import Question, is_true_answer
from litevlm_ros.lab.world.scene import HELD_OUT_CONDITION, HELD_OUT_USERS

_Z = 1.959964
"""The normal distribution's quantile for a 95 % interval."""


@dataclass(frozen=True)
class Share:
    """A proportion: `hits` of `total` cases."""

    hits: int
    total: int

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Share:
        """Counts the outcomes that are true."""
        listed = list(outcomes)
        return cls(sum(listed), len(listed))

    def __add__(self, other: Share) -> Share:
        return Share(self.hits + other.hits, self.total + other.total)

    @property
    def value(self) -> float | None:
        """The proportion, from 0 to 1; None if there were no cases."""
        return self.hits / self.total if self.total else None

    @property
    def percent(self) -> str:
        """The proportion as text in percent; '-' if there were no cases."""
        return "-" if self.value is None else f"{100 * self.value:.1f}"

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % score interval (E. B. Wilson, 1927), for cases that are independent of each other."""
        if not self.total:
            return 0.0, 1.0
        share, spread = self.hits / self.total, _Z**2 / self.total
        middle = (share + spread / 2) / (1 + spread)
        reach = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
        # With no hits or only hits, the outer bound is the share itself but for rounding.
        return (middle - reach if self.hits else 0.0), (middle + reach if self.hits < self.total else 1.0)

    def json(self) -> dict[str, Any]:
        """Returns the counts, the proportion and its interval for a JSON file."""
        return {"right": self.hits, "of": self.total, "share": self.value, "interval": list(self.interval)}


NOTHING = Share(0, 0)
"""The sum of no shares."""


def paired_loss(reference: Sequence[bool], other: Sequence[bool]) -> tuple[float, float, float]:
    """Returns the percentage points that `other` loses against `reference`, and the ends of their 95 % interval.

    Both are outcomes of the same questions in the same order, so only questions count that just one of them got right
    (McNemar's pairs).
    """
    pairs = list(zip(reference, other, strict=True))
    lost, won = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    total = max(1, len(pairs))
    points = 100 * (lost - won) / total
    reach = _Z * 100 * math.sqrt(max(0.0, lost + won - (lost - won) ** 2 / total)) / total
    return points, points - reach, points + reach


@dataclass(frozen=True)
class CaptionScore:
    """Scores of captions.

    `truth` is the share of the statements made that are true, `coverage` the share of the statements due that were
    made, and `exact` the share of captions that are true and complete.
    """

    truth: Share
    coverage: Share
    exact: Share


@dataclass(frozen=True)
class HeldOutScore:
    """Scores of what concerns combinations of kind and colour, and of weather and time, that training leaves out.

    `answers` has the short answers where the question, or it and its answer together, name such a combination. `truth`
    is the share of true statements among those of captions that name one; `coverage` the share of road users of such a
    combination in the described views that the caption states right. `condition` is the share of captions with the
    right opening, in scenes of the held-out weather and time.
    """

    answers: Share
    truth: Share
    coverage: Share
    condition: Share


@dataclass(frozen=True)
class Score:
    """All scores of some replies. `answers` has the short answers; `kinds` the same by kind of question."""

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
"""Parts of an evaluation by name, each as a filter of its replies."""


def score(replies: Iterable[Reply]) -> Score:
    """Scores replies to short questions and captions."""
    short: list[Reply] = []
    captions: list[Reply] = []
    for reply in replies:
        (captions if reply.question.kind == CAPTION else short).append(reply)
    kinds: dict[str, Share] = {}
    for reply in short:
        kinds[reply.question.kind] = kinds.get(reply.question.kind, NOTHING) + Share.of([is_right(reply)])
    return Score(
        answers=sum(kinds.values(), NOTHING),
        kinds=dict(sorted(kinds.items())),
        captions=_caption_score(captions),
        held_out=_held_out_score(short, captions),
    )


def is_right(reply: Reply) -> bool:
    """Tells whether a short answer is the true one in upper or lower case, or a caption is true and complete."""
    if reply.question.kind == CAPTION:
        return _caption_score([reply]).exact.hits == 1
    return is_true_answer(reply.text, reply.question.answer)


def concerns_held_out(question: Question) -> bool:
    """Tells whether a question, or it and its answer together, name a combination that training leaves out.

    "What colour is the bus?" does if the answer is "red".
    """
    words = set(re.findall(r"\w+", f"{question.text} {question.answer}".lower()))
    return any({kind.value, colour} <= words for kind, colour in HELD_OUT_USERS)


def _caption_score(replies: Iterable[Reply]) -> CaptionScore:
    truth = coverage = exact = NOTHING
    for reply in replies:
        verdict = judge(reply.text, reply.exercise.scene, *reply.question.cameras)
        truth += Share(verdict.true, verdict.statements)
        coverage += Share(verdict.covered, verdict.present)
        exact += Share.of([verdict.true == verdict.statements and verdict.covered == verdict.present])
    return CaptionScore(truth, coverage, exact)


def _held_out_score(short: Iterable[Reply], captions: Iterable[Reply]) -> HeldOutScore:
    answers = Share.of(is_right(reply) for reply in short if concerns_held_out(reply.question))
    truth = coverage = condition = NOTHING
    for reply in captions:
        scene, (camera,) = reply.exercise.scene, reply.question.cameras
        users = scene.views[camera].users
        due = Counter(describe_user(user) for user in users if (user.kind, user.colour) in HELD_OUT_USERS)
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
