"""What view selection keeps, and what it costs: the same questions answered from the chosen views and from all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from litevlm_ros.evaluation.answering import Reply
from litevlm_ros.evaluation.exercises import CAPTION, Exercise
from litevlm_ros.evaluation.scores import is_right
from litevlm_ros.evaluation.share import Share
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.vision.view_selection import ViewSelector

_NOTHING = Share(0, 0)


@dataclass(frozen=True)
class ViewChoice:
    """Of short questions about several views.

    `kept`: views kept of those offered. `precision`: needed ones of those kept, and `recall`: kept ones of those
    needed, where the question needs certain views. `complete`: questions whose needed views were all kept. `chosen` and
    `all_views`: right answers from the chosen views, and from all.
    """

    kept: Share = _NOTHING
    precision: Share = _NOTHING
    recall: Share = _NOTHING
    complete: Share = _NOTHING
    chosen: Share = _NOTHING
    all_views: Share = _NOTHING

    def __add__(self, other: ViewChoice) -> ViewChoice:
        return ViewChoice(**{name: share + getattr(other, name) for name, share in vars(self).items()})

    @property
    def mean_views(self) -> float:
        """Views kept of a question, where six are offered."""
        return 6 * (self.kept.value or 0.0)

    @property
    def lost_points(self) -> float:
        """Accuracy lost in percentage points; negative where choosing helps."""
        return 100 * ((self.all_views.value or 0.0) - (self.chosen.value or 0.0))


def examine_choice(pipeline: Pipeline, selector: ViewSelector, exercises: Iterable[Exercise]) -> ViewChoice:
    """Puts the short questions of exercises with several views. Raises what `Pipeline.encode` and `answer` raise."""
    whole = ViewChoice()
    for number, exercise in enumerate(exercises):
        if len(exercise.cameras) == 1:
            continue
        views = [replace(view, frame=(number, view.camera)) for view in exercise.views()]
        everything = pipeline.encode(views)
        for question in exercise.questions:
            if question.kind == CAPTION:
                continue
            cameras = selector.select(question.text, exercise.cameras)
            chosen = pipeline.encode([view for view in views if view.camera in cameras])
            needed = set(question.cameras)
            hits = len(needed & set(cameras))
            right = []
            for seen in (chosen, everything):
                given = pipeline.answer(seen, question.text)
                right.append(Share.of([is_right(Reply(exercise, question, given.text, given.timings))]))
            whole += ViewChoice(
                kept=Share(len(cameras), len(views)),
                precision=Share(hits, len(cameras)) if needed else _NOTHING,
                recall=Share(hits, len(needed)),
                complete=Share.of([hits == len(needed)]),
                chosen=right[0],
                all_views=right[1],
            )
    return whole


def choice_table(choice: ViewChoice) -> str:
    """For people."""
    lines = [f"views kept: {choice.mean_views:.2f} of 6, in {choice.chosen.total} questions about six views"]
    for title, share in (
        ("needed, of those kept", choice.precision),
        ("kept, of those needed", choice.recall),
        ("questions with all they need", choice.complete),
        ("right from the chosen views", choice.chosen),
        ("right from all views", choice.all_views),
    ):
        low, high = share.interval
        lines.append(f"{title:30}{100 * (share.value or 0):7.1f} %{100 * low:8.1f} to {100 * high:.1f}")
    return "\n".join([*lines, f"{'points lost':30}{choice.lost_points:7.1f}"])
