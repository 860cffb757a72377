"""The rows of the paper's table (arXiv 2506.07416), and the questions that each of them answers.

A row is the base configuration with switches turned. All rows answer the same questions about six views of held-out
scenes, on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from litevlm_ros.config import PipelineConfig, SpeculationConfig, TokenSelectionConfig, ViewSelectionConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.world.exercises import CAPTION, Exercise, held_out_exercises
from litevlm_ros.lab.world.questions import Question
from litevlm_ros.types import View


@dataclass(frozen=True)
class TableRow:
    """One row. `name` is its key in JSON; `config` answers questions about frames that are all new."""

    name: str
    title: str
    config: PipelineConfig


@dataclass(frozen=True)
class Parts:
    """The methods that the switches stand for.

    `keep` is the share of visual tokens that stay, of the random ones as well. `precisions` are those of vision encoder
    and text decoder in the FP8 row.
    """

    view_selection: str = "learned"
    token_selection: str = "diversity"
    keep: float = 0.6
    speculation: str = "auto"
    precisions: tuple[str, str] = ("fp8", "fp8")


def table_rows(base: PipelineConfig, parts: Parts) -> list[TableRow]:
    """Returns the rows, from no switch to all of them, and random tokens as a control.

    Raises ConfigError for parts that do not exist.
    """
    views = ViewSelectionConfig(parts.view_selection)
    tokens = TokenSelectionConfig(parts.token_selection, parts.keep)
    random = TokenSelectionConfig("random", parts.keep)
    speculation = SpeculationConfig(parts.speculation)
    everything = replace(base, view_selection=views, token_selection=tokens, speculation=speculation)
    vision, text = parts.precisions
    quantized = replace(everything, vision_precision=vision, text_precision=text)
    mixed = "" if vision == text == "fp8" else f" (vision {vision}, text {text})"
    kept = f"{100 * parts.keep:g} %"
    return [
        TableRow("base", "base", base),
        TableRow("view_selection", f"+ view selection ({parts.view_selection})", replace(base, view_selection=views)),
        TableRow(
            "token_selection",
            f"+ token selection ({parts.token_selection}, {kept})",
            replace(base, token_selection=tokens),
        ),
        TableRow("random_tokens", f"+ random tokens ({kept})", replace(base, token_selection=random)),
        TableRow("speculation", f"+ speculation ({parts.speculation})", replace(base, speculation=speculation)),
        TableRow("all", "all", everything),
        TableRow("all_fp8", f"all + FP8{mixed}", quantized),
    ]


@dataclass(frozen=True)
class TableQuestion:
    """A question about the views of an exercise. `number` is that of the exercise."""

    number: int
    exercise: Exercise
    question: Question

    @property
    def scored(self) -> bool:
        """True for a question with a short answer, which is right or wrong; False for a caption."""
        return self.question.kind != CAPTION


def table_questions(seed: int, short: int) -> list[TableQuestion]:
    """Returns `short` questions with short answers and, before every twelve, a request for a caption.

    Raises ConfigError.
    """
    if short < 1:
        raise ConfigError(f"--questions is {short}; allowed: from 1. Use at least 2000 for a figure to rely on")
    asked: list[TableQuestion] = []
    for number, exercise in enumerate(held_out_exercises(seed, short)):
        if len(exercise.cameras) > 1:
            for question in exercise.questions:
                asked.append(TableQuestion(number, exercise, question))
                short -= question.kind != CAPTION
                if not short:
                    return asked
    raise AssertionError("an exercise has at least one short question")


class RenderedViews:
    """The views of the last few exercises, rendered once for all of their questions and all rows."""

    def __init__(self, exercises: int = 1) -> None:
        """Keeps the views of so many exercises, 5.5 MB each."""
        self._exercises = exercises
        self._views: dict[int, Sequence[View]] = {}

    def of(self, asked: TableQuestion) -> Sequence[View]:
        """Returns six views, each with the identity of its frame."""
        if asked.number not in self._views:
            if len(self._views) == self._exercises:
                del self._views[next(iter(self._views))]
            views = asked.exercise.views()
            self._views[asked.number] = [replace(view, frame=(asked.number, view.camera)) for view in views]
        return self._views[asked.number]
