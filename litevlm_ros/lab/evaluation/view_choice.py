"""What view selection keeps, and what it costs: the same questions answered from the chosen views and from all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from litevlm_ros.lab.evaluation.answering import Reply
from litevlm_ros.lab.evaluation.exercises import CAPTION, Exercise
from litevlm_ros.lab.evaluation.scores import is_right
from litevlm_ros.lab.evaluation.share import Share
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.vision.view_selection import ViewSelector

_NOTHING = Share(0, 0)


@dataclass(frozen=True)
class ViewChoice:
    """Of short questions about several views.

    `kept`: views kept of those offered. `precision`: needed ones of those kept, and `recall`: kept ones of those
    needed, where the question needs certain views. `complete`: questions whose needed views were all kept. `chosen` and
    `all_views`: right answers from the chosen views, and from all. `select_ms`: what choosing took, added up.
    """

    kept: Share = _NOTHING
    precision: Share = _NOTHING
    recall: Share = _NOTHING
    complete: Share = _NOTHING
    chosen: Share = _NOTHING
    all_views: Share = _NOTHING
    select_ms: float = 0.0

    def __add__(self, other: ViewChoice) -> ViewChoice:
        return ViewChoice(**{name: part + getattr(other, name) for name, part in vars(self).items()})

    @property
    def mean_select_ms(self) -> float:
        """Wall time of choosing for a question."""
        return self.select_ms / max(1, self.chosen.total)

    @property
    def mean_views(self) -> float:
        """Views kept of a question, where six are offered."""
        return 6 * (self.kept.value or 0.0)

    @property
    def lost_points(self) -> float:
        """Accuracy lost in percentage points; negative where choosing helps."""
        return 100 * ((self.all_views.value or 0.0) - (self.chosen.value or 0.0))


def examine_choice(
    pipeline: Pipeline, selectors: Mapping[str, ViewSelector], exercises: Iterable[Exercise]
) -> dict[str, ViewChoice]:
    """Puts the short questions of exercises with several views, for each selector by its name.

    Raises what `Pipeline.encode` and `answer` raise.
    """
    choices = dict.fromkeys(selectors, ViewChoice())
    for number, exercise in enumerate(exercises):
        if len(exercise.cameras) == 1:
            continue
        views = [replace(view, frame=(number, view.camera)) for view in exercise.views()]
        for question in exercise.questions:
            if question.kind == CAPTION:
                continue
            kept, times = {}, {}
            for name, selector in selectors.items():
                started = time.perf_counter()
                kept[name] = selector.select(question.text, exercise.cameras)
                times[name] = 1e3 * (time.perf_counter() - started)
            right: dict[tuple[str, ...], Share] = {}
            for cameras in (exercise.cameras, *kept.values()):
                if cameras not in right:
                    given = pipeline.answer(pipeline.encode([v for v in views if v.camera in cameras]), question.text)
                    right[cameras] = Share.of([is_right(Reply(exercise, question, given.text, given.timings))])
            needed = set(question.cameras)
            for name, cameras in kept.items():
                hits = len(needed & set(cameras))
                choices[name] += ViewChoice(
                    kept=Share(len(cameras), len(views)),
                    precision=Share(hits, len(cameras)) if needed else _NOTHING,
                    recall=Share(hits, len(needed)),
                    complete=Share.of([hits == len(needed)]),
                    chosen=right[cameras],
                    all_views=right[exercise.cameras],
                    select_ms=times[name],
                )
    return choices


def choice_table(choices: Mapping[str, ViewChoice]) -> str:
    """For people: a column for each selector, shares in percent."""
    columns = list(choices.values())

    def line(title: str, cells: Iterable[str]) -> str:
        return f"{title:30}" + "".join(f"{cell:>24}" for cell in cells)

    def of(share: Share) -> str:
        low, high = share.interval
        return f"{100 * (share.value or 0):.1f} ({100 * low:.1f} to {100 * high:.1f})"

    return "\n".join(
        [
            f"{columns[0].chosen.total} questions about six views; shares in % with 95 % intervals",
            line("", choices),
            line("views kept", (f"{choice.mean_views:.2f}" for choice in columns)),
            line("needed, of those kept", (of(choice.precision) for choice in columns)),
            line("kept, of those needed", (of(choice.recall) for choice in columns)),
            line("questions with all they need", (of(choice.complete) for choice in columns)),
            line("right from the chosen views", (of(choice.chosen) for choice in columns)),
            line("right from all views", (of(choice.all_views) for choice in columns)),
            line("points lost", (f"{choice.lost_points:.1f}" for choice in columns)),
            line("ms to choose", (f"{choice.mean_select_ms:.2f}" for choice in columns)),
        ]
    )
