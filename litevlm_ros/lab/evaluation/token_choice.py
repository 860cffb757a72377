"""The accuracy that token selection costs: questions about six views, answered from all visual tokens and from some."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from litevlm_ros.config import TokenSelectionConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.answering import Reply
from litevlm_ros.lab.evaluation.scores import Share, is_right, paired_loss
from litevlm_ros.lab.world.exercises import CAPTION, Exercise, held_out_exercises
from litevlm_ros.machine import describe
from litevlm_ros.pipeline import Pipeline
from litevlm_ros.types import Notify

OFF, RANDOM = "off", "random"

_NOTE_EVERY = 10


@dataclass
class TokenChoice:
    """The outcome of one method and budget. `right` has an entry a question, both times have one an exercise, in ms."""

    method: str
    keep: float
    right: list[bool] = field(default_factory=list)
    select_ms: list[float] = field(default_factory=list)
    prefill_ms: list[float] = field(default_factory=list)
    visual_tokens: int = 0
    """Those of the last question."""


def examine_tokens(
    pipeline: Pipeline,
    methods: Sequence[str],
    budgets: Sequence[float],
    exercises: Iterable[Exercise],
    notify: Notify,
) -> list[TokenChoice]:
    """Puts the short questions of exercises with several views: with all tokens, then with each method and budget.

    `budgets` are shares of each tile's tokens. Raises ConfigError for a method that the backend does not have, and what
    `Pipeline.encode` and `answer` raise.
    """
    choices = [TokenChoice(OFF, 1.0), *(TokenChoice(method, keep) for keep in budgets for method in methods)]
    make = pipeline.backend.token_selector
    selectors = [None, *(make(TokenSelectionConfig(choice.method, choice.keep)) for choice in choices[1:])]
    examined = (exercise for exercise in exercises if len(exercise.cameras) > 1)
    for number, exercise in enumerate(examined, start=1):
        # Named, so that all methods see the vision encoder's one result.
        views = [replace(view, frame=(number, view.camera)) for view in exercise.views()]
        questions = [question for question in exercise.questions if question.kind != CAPTION]
        for choice, selector in zip(choices, selectors, strict=True):
            pipeline.token_selector = selector
            encoded = pipeline.encode(views)
            choice.select_ms.append(encoded.select_ms)
            answers = [pipeline.answer(encoded, question.text) for question in questions]
            choice.prefill_ms.append(answers[0].timings.prefill)
            choice.visual_tokens = answers[0].tokens.visual
            for question, given in zip(questions, answers, strict=True):
                choice.right.append(is_right(Reply(exercise, question, given.text, given.timings)))
        if number % _NOTE_EVERY == 0:
            notify(f"{number} exercises, {len(choices[0].right)} questions to each of {len(choices)} settings")
    return choices


def report_tokens(
    pipeline: Pipeline, methods: Sequence[str], budgets: str, seed: int, scenes: int, notify: Notify
) -> tuple[str, dict[str, Any]]:
    """Examines token selection on held-out scenes. Returns a text for people and figures for JSON.

    `budgets` are shares of the visual tokens, separated by commas. Raises ConfigError and what `examine_tokens`
    raises.
    """
    try:
        shares = [float(budget) for budget in budgets.split(",")]
    except ValueError:
        raise ConfigError(
            f"--token-budgets is {budgets!r}; allowed: shares above 0, at most 1, with commas. Use 0.5"
        ) from None
    choices = examine_tokens(pipeline, methods, shares, held_out_exercises(seed, scenes), notify)
    host, model = describe(), pipeline.config.model_dir
    text = (
        f"{host['cpu']}, {host['cores']} cores; {pipeline.backend.description}\n"
        f"{model}: {scenes} scenes of six views, {len(choices[0].right)} questions\n\n{tokens_table(choices)}"
    )
    return text, {"machine": host, "model": str(model), "settings": tokens_json(choices)}


def tokens_json(choices: Sequence[TokenChoice]) -> list[dict[str, Any]]:
    """Returns accuracy from 0 to 1, points with the ends of their 95 % intervals, and medians in ms."""
    rows = []
    for choice in choices:
        share = Share.of(choice.right)
        row: dict[str, Any] = {
            "method": choice.method,
            "keep": choice.keep,
            "visual_tokens": choice.visual_tokens,
            "questions": share.total,
            "accuracy": share.value,
            "accuracy_interval": list(share.interval),
            "select_ms": median(choice.select_ms),
            "prefill_ms": median(choice.prefill_ms),
            "points_lost": list(paired_loss(choices[0].right, choice.right)),
        }
        control = next((other for other in choices if (other.method, other.keep) == (RANDOM, choice.keep)), None)
        if control is not None and choice is not control:
            row["points_above_random"] = list(paired_loss(choice.right, control.right))
        rows.append(row)
    return rows


def tokens_table(choices: Sequence[TokenChoice]) -> str:
    """Returns a table in percent and points. The first prefill of a scene reads all of its kept tokens."""
    titles = ("tokens", "right %", "95 % interval", "points lost", "above random", "select ms", "prefill ms")
    lines = [f"{'':17}" + "".join(f"{title:>21}" for title in titles)]
    for row in tokens_json(choices):
        low, high = row["accuracy_interval"]
        cells = (
            f"{row['visual_tokens']}",
            f"{100 * (row['accuracy'] or 0):.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            _points(row["points_lost"]),
            _points(row["points_above_random"]) if "points_above_random" in row else "",
            f"{row['select_ms']:.2f}",
            f"{row['prefill_ms']:.1f}",
        )
        name = row["method"] if row["method"] == OFF else f"{row['method']}, {100 * row['keep']:g} %"
        lines.append(f"{name:17}" + "".join(f"{cell:>21}" for cell in cells))
    return "\n".join(lines)


def _points(points: Sequence[float]) -> str:
    value, low, high = points
    return f"{value:+.1f} ({low:+.1f}, {high:+.1f})"
