"""The paper's table: accuracy and latency of each row, from one or two machines, as Markdown, JSON and chart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from litevlm_ros.config import PipelineConfig
from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.scores import paired_loss
from litevlm_ros.lab.evaluation.table_accuracy import (
    Provenance,
    RowAccuracy,
    accuracy_json,
    measure_accuracy,
    read_accuracy,
)
from litevlm_ros.lab.evaluation.table_latency import RowLatency, measure_latency
from litevlm_ros.lab.evaluation.table_rows import Parts, TableRow, table_questions, table_rows
from litevlm_ros.machine import describe
from litevlm_ros.types import Notify

_COLUMNS = (
    "views kept", "visual tokens", "vision ms", "select ms", "prefill ms", "ms/token", "decode ms", "total ms",
    "accuracy %", "points lost",
)  # fmt: skip
_CHARTED_STAGES = ("preprocess", "vision", "select", "prefill", "decode")


@dataclass(frozen=True)
class Table:
    """Rows by their names. `latency` has none where none was measured."""

    titles: Mapping[str, str]
    accuracy: Mapping[str, RowAccuracy]
    accuracy_from: Provenance
    latency: Mapping[str, RowLatency]
    latency_from: Provenance | None

    @classmethod
    def of(
        cls,
        rows: Sequence[TableRow],
        accuracy: tuple[Mapping[str, RowAccuracy], Provenance],
        latency: tuple[Mapping[str, RowLatency], Provenance] | None,
    ) -> Table:
        """Puts two halves together."""
        titles = {row.name: row.title for row in rows}
        return cls(titles, *accuracy, *(latency or ({}, None)))

    def speed_up(self, name: str) -> float | None:
        """Returns how many times faster than the base an answer is there; None where either was not measured."""
        row, base = self.latency.get(name), self.latency.get("base")
        return base.total_ms / row.total_ms if row and base and row.questions and base.questions else None

    def lost_points(self, name: str) -> tuple[float, float, float] | None:
        """Returns the accuracy lost against the base with its 95 % interval; None where either was not measured."""
        row, base = self.accuracy[name].outcomes, self.accuracy["base"].outcomes
        return paired_loss(base, row) if row and base else None

    def over_random(self) -> tuple[float, float, float] | None:
        """Returns by how many points token selection is better than random tokens, with the 95 % interval.

        It is None where either was not measured.
        """
        chosen, random = (
            self.accuracy.get(name, RowAccuracy()).outcomes for name in ("token_selection", "random_tokens")
        )
        return paired_loss(chosen, random) if chosen and random else None

    def json(self) -> dict[str, Any]:
        """Returns everything but the answers."""
        rows = {}
        for name, title in self.titles.items():
            accuracy, latency = self.accuracy[name], self.latency.get(name)
            rows[name] = {
                "title": title,
                "views_kept": accuracy.views if accuracy.given else None,
                "accuracy": accuracy.right.value,
                "accuracy_interval": list(accuracy.right.interval) if accuracy.given else None,
                "lost_points": self.lost_points(name),
                "accuracy_backend": accuracy.backend,
                "accuracy_obstacle": accuracy.obstacle,
                "latency": asdict(latency) if latency else None,
                "speed_up": self.speed_up(name),
            }
        return {
            "rows": rows,
            "token_selection_over_random": self.over_random(),
            "accuracy_from": asdict(self.accuracy_from),
            "latency_from": asdict(self.latency_from) if self.latency_from else None,
        }

    def markdown(self) -> str:
        """Returns the table, the source of its halves, and why figures are missing."""
        lines = [f"| | {' | '.join(_COLUMNS)} |", f"|{'---|' * (1 + len(_COLUMNS))}"]
        lines += [f"| {title} | {' | '.join(self._cells(name))} |" for name, title in self.titles.items()]
        source = self.accuracy_from
        notes = [f"Accuracy: {source.questions} questions, {source.model}, {source.machine}; 95 % intervals."]
        if self.latency_from:
            source = self.latency_from
            notes.append(
                f"Milliseconds: means of {source.questions} questions about new frames, {source.model}, "
                f"{source.machine}. Each row says what it said for accuracy. The total has preprocessing too."
            )
        better = self.over_random()
        if better:
            points, low, high = better
            notes.append(f"Token selection is {points:.1f} points ({low:.1f} to {high:.1f}) better than random tokens.")
        return "\n".join([*lines, "", *notes, *(f"- {reason}" for reason in self._obstacles())])

    def draw(self, file: Path) -> None:
        """Draws a PNG: where the time of an answer goes in each row, and the share of right answers.

        Raises ConfigError without times or without matplotlib, and OSError.
        """
        try:
            from litevlm_ros.lab.charts import StackedBars, draw_table
        except ImportError as error:
            raise ConfigError(f"--chart needs matplotlib ({error}): `pip install matplotlib`") from error
        timed = {name: row for name, row in self.latency.items() if row.questions}
        if not timed:
            raise ConfigError("--chart needs times, and none were measured. Ask for some --latency-questions")
        labels, shares = [], []
        for name, row in timed.items():
            faster, right = self.speed_up(name), self.accuracy[name].right
            labels.append(f"{row.total_ms:.1f} ms" + (f", {faster:.2f}x" if faster and name != "base" else ""))
            low, high = (100 * bound for bound in right.interval)
            shares.append(None if right.value is None else (100 * right.value, low, high))
        parts = {stage: [getattr(row, f"{stage}_ms") for row in timed.values()] for stage in _CHARTED_STAGES}
        draw_table(StackedBars([self.titles[name] for name in timed], parts, labels), shares, file)

    def _cells(self, name: str) -> list[str]:
        accuracy, latency = self.accuracy[name], self.latency.get(name)
        views, tokens, share = "-", "-", "-"
        if accuracy.given:
            low, high = (100 * bound for bound in accuracy.right.interval)
            views, tokens = f"{accuracy.views:.2f}", f"{accuracy.visual_tokens:.0f}"
            share = f"{100 * (accuracy.right.value or 0):.1f} ({low:.1f} to {high:.1f})"
        times = ["-"] * 6
        if latency and latency.questions:
            tokens = f"{accuracy.views * latency.tokens_per_view:.0f}" if accuracy.given else "-"
            faster = self.speed_up(name)
            times = [
                f"{latency.vision_ms:.1f}",
                f"{latency.select_ms:.2f}",
                f"{latency.prefill_ms:.1f}",
                f"{latency.token_ms:.2f}",
                f"{latency.decode_ms:.1f}",
                f"{latency.total_ms:.1f}" + (f" ({faster:.2f}x)" if faster and name != "base" else ""),
            ]
        lost = self.lost_points(name)
        points = "-" if lost is None or name == "base" else f"{lost[0]:.1f} ({lost[1]:.1f} to {lost[2]:.1f})"
        return [views, tokens, *times, share, points]

    def _obstacles(self) -> list[str]:
        """Returns a line for each reason, with the rows and the half that it concerns."""
        found: dict[str, list[str]] = {}
        for half, figures in (("accuracy", self.accuracy), ("latency", self.latency)):
            for name, row in figures.items():
                if row.obstacle:
                    found.setdefault(row.obstacle, []).append(f"{half} of {self.titles[name]}")
        return [f"No {', '.join(rows)}: {reason}" for reason, rows in found.items()]


@dataclass(frozen=True)
class TableRun:
    """The settings of one run of the table.

    `base` is the plain pipeline on the model whose accuracy is measured. `latency_model` is the model directory whose
    latency is measured, None for the same. Of `questions` short questions the first `latency_questions`, captions among
    them, are timed; 0 times none. `accuracy_from` is a file that takes the place of measuring accuracy.
    """

    base: PipelineConfig
    parts: Parts
    seed: int
    questions: int
    latency_questions: int
    latency_model: Path | None = None
    accuracy_from: Path | None = None


def make_table(run: TableRun, notify: Notify) -> tuple[Table, dict[str, Any]]:
    """Measures the table. Returns it, and all of it for JSON with the answers included. Raises LiteVLMError."""
    if not 0 <= run.latency_questions <= run.questions:
        raise ConfigError(
            f"--latency-questions is {run.latency_questions}; allowed: from 0 to --questions ({run.questions})"
        )
    rows = table_rows(run.base, run.parts)
    if run.accuracy_from:
        (accuracy, source), asked = read_accuracy(run.accuracy_from, [row.name for row in rows])
    else:
        asked = table_questions(run.seed, run.questions)
        accuracy = measure_accuracy(rows, asked, notify)
        source = Provenance(_machine(), _model(run.base.model_dir, accuracy.values()), run.seed, run.questions)
    timed = None
    if run.latency_questions:
        directory = run.latency_model or run.base.model_dir
        timed_rows = [replace(row, config=replace(row.config, model_dir=directory)) for row in rows]
        latency = measure_latency(timed_rows, asked, accuracy, run.latency_questions, notify)
        count = max(row.questions for row in latency.values())
        timed = latency, Provenance(_machine(), _model(directory, latency.values()), source.seed, count)
    table = Table.of(rows, (accuracy, source), timed)
    return table, {"table": table.json(), "accuracy": accuracy_json(accuracy, source, asked)}


def _machine() -> str:
    host = describe()
    return ", ".join(part for part in (host["gpu"], f"{host['cores']} cores of {host['cpu']}") if part)


def _model(directory: Path, figures: Iterable[RowAccuracy] | Iterable[RowLatency]) -> str:
    """Returns the directory's name, and what ran it."""
    backends = dict.fromkeys(row.backend for row in figures if row.backend)
    return f"{directory.parent.name}/{directory.name} on {' and '.join(backends) or 'nothing'}"
