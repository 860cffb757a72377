"""The views that view selection keeps and the accuracy it costs: answers from the chosen views and from all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from litevlm_ros.config import DEMO_CAMERAS
from litevlm_ros.lab.evaluation.answering import Reply
from litevlm_ros.lab.evaluation.scores import NOTHING, Share, is_right
from litevlm_ros.lab.world.exercises import CAPTION, Exercise, held_out_exercises
from litevlm_ros.machine import describe
from litevlm_ros.model_directory import VIEW_SELECTOR_GRAPH
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import milliseconds_since
from litevlm_ros.vision.learned_view_selection import LearnedSelector
from litevlm_ros.vision.view_selection import LexicalSelector, ViewSelector


@dataclass(frozen=True)
class ViewChoice:
    """Scores of one selector on short questions about several views.

    `kept` is the share of the offered views that are kept. Where a question needs certain views, `precision` is the
    share of the kept views that are needed, and `recall` the share of the needed views that are kept. `complete` is the
    share of questions whose needed views are all kept. `chosen` and `all_views` are the shares of right answers from
    the chosen views and from all. `select_ms` has the time of each choice, right after an answer of the model, which
    leaves little of the selector in the CPU's caches.
    """

    kept: Share = NOTHING
    precision: Share = NOTHING
    recall: Share = NOTHING
    complete: Share = NOTHING
    chosen: Share = NOTHING
    all_views: Share = NOTHING
    select_ms: tuple[float, ...] = ()

    def __add__(self, other: ViewChoice) -> ViewChoice:
        return ViewChoice(**{name: part + getattr(other, name) for name, part in vars(self).items()})

    @property
    def mean_views(self) -> float:
        """Mean number of views kept for a question, where six are offered."""
        return 6 * (self.kept.value or 0.0)

    @property
    def lost_points(self) -> float:
        """Accuracy lost in percentage points; negative where choosing helps."""
        return 100 * ((self.all_views.value or 0.0) - (self.chosen.value or 0.0))


def examine_choice(
    pipeline: Pipeline, selectors: Mapping[str, ViewSelector], exercises: Iterable[Exercise]
) -> dict[str, ViewChoice]:
    """Puts the short questions of exercises with several views. Returns the scores by the selector's name.

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
                times[name] = milliseconds_since(started)
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
                    precision=Share(hits, len(cameras)) if needed else NOTHING,
                    recall=Share(hits, len(needed)),
                    complete=Share.of([hits == len(needed)]),
                    chosen=right[cameras],
                    all_views=right[exercise.cameras],
                    select_ms=(times[name],),
                )
    return choices


def choice_table(choices: Mapping[str, ViewChoice]) -> str:
    """Returns a table with a column for each selector, shares in percent."""
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
            line("ms to choose after an answer", (_middle(choice.select_ms) for choice in columns)),
        ]
    )


def time_choices(selectors: Mapping[str, ViewSelector], exercises: Iterable[Exercise]) -> dict[str, tuple[float, ...]]:
    """Returns the ms of each choice by the selector's name: for questions that are all new, one right after the other.

    The selectors must not have been asked them before.
    """
    asked = {question.text: exercise.cameras for exercise in exercises for question in exercise.questions}
    times: dict[str, tuple[float, ...]] = {}
    for name, selector in selectors.items():
        selector.select("", DEMO_CAMERAS)  # compiles what belongs to the cameras
        for text, cameras in asked.items():
            started = time.perf_counter()
            selector.select(text, cameras)
            times[name] = (*times.get(name, ()), milliseconds_since(started))
    return times


def _middle(times: Sequence[float]) -> str:
    return f"{median(times):.3f} (90 %: {quantiles(times, n=10)[-1]:.3f})" if len(times) > 1 else "-"


def report_choice(pipeline: Pipeline, seed: int, scenes: int) -> tuple[str, dict[str, Any]]:
    """Examines lexical and, if the model has it, learned view selection on held-out scenes.

    Returns a text for people and figures for JSON. Raises LiteVLMError.
    """
    model = pipeline.config.model_dir
    times = time_choices(_selectors(model), held_out_exercises(seed, scenes))
    choices = examine_choice(pipeline, _selectors(model), held_out_exercises(seed, scenes))
    host = describe()
    text = (
        f"{host['cpu']}, {host['cores']} cores; {pipeline.backend.description}\n"
        f"{model}: {scenes} scenes; views chosen by the question\n\n{choice_table(choices)}\n"
        + "\n".join(
            f"ms to choose for one new question after another, {name}: {_middle(ms)}" for name, ms in times.items()
        )
    )
    figures = {
        name: {"views_kept": choice.mean_views, "ms_to_choose": median(times[name]), **asdict(choice)}
        for name, choice in choices.items()
    }
    return text, {"machine": host, "model": str(model), "selectors": figures}


def _selectors(model: Path) -> dict[str, ViewSelector]:
    selectors: dict[str, ViewSelector] = {"lexical": LexicalSelector()}
    if (model / VIEW_SELECTOR_GRAPH).is_file():
        selectors["learned"] = LearnedSelector(model / VIEW_SELECTOR_GRAPH, LexicalSelector())
    return selectors
