"""The paper's table: accuracy and latency of each row, from one or two machines, as Markdown, JSON and chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.scores import paired_loss
from litevlm_ros.lab.evaluation.table_accuracy import Provenance, RowAccuracy
from litevlm_ros.lab.evaluation.table_latency import RowLatency
from litevlm_ros.packages import pip_command

BASE = "base"
"""The row that the others are compared with."""
REFERENCE = "transformers"
"""The name of a row that has no accuracy of its own: the base's questions, answered by transformers."""

_STAGES = ("preprocess", "vision", "select", "prefill", "decode")
_VIEWS = 6


@dataclass(frozen=True)
class Table:
    """Rows by their names, in the order of `titles`. Each half has those of them that were measured so far."""

    titles: Mapping[str, str]
    accuracy: Mapping[str, RowAccuracy]
    accuracy_from: Provenance
    latency: Mapping[str, RowLatency]
    latency_from: Provenance | None

    def speed_up(self, name: str, against: str = BASE) -> float | None:
        """Returns how many times faster an answer is than in the row `against`; None where either was not measured."""
        row, other = self._timed.get(name), self._timed.get(against)
        return other.total_ms / row.total_ms if row and other else None

    def lost_points(self, name: str) -> tuple[float, float, float] | None:
        """Returns the accuracy lost against the base with its 95 % interval; None where either was not measured."""
        row, base = self._right(name), self._right(BASE)
        return paired_loss(base, row) if row and base else None

    def over_random(self) -> tuple[float, float, float] | None:
        """Returns by how many points token selection is better than random tokens, with the 95 % interval.

        It is None where either was not measured.
        """
        chosen, random = self._right("token_selection"), self._right("random_tokens")
        return paired_loss(chosen, random) if chosen and random else None

    def json(self) -> dict[str, Any]:
        """Returns everything but the answers."""
        rows = {}
        for name, title in self.titles.items():
            accuracy, latency = self.accuracy.get(name, RowAccuracy()), self.latency.get(name)
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
                "speed_up_over_transformers": self.speed_up(name, REFERENCE),
            }
        return {
            "rows": rows,
            "token_selection_over_random": self.over_random(),
            "accuracy_from": asdict(self.accuracy_from),
            "latency_from": asdict(self.latency_from) if self.latency_from else None,
        }

    def markdown(self) -> str:
        """Returns the table, the source of its halves, and why figures are missing."""
        cells = {title: self._cells(name) for name, title in self.titles.items()}
        columns = list(next(iter(cells.values())))
        lines = [f"| | {' | '.join(columns)} |", f"|{'---|' * (1 + len(columns))}"]
        lines += [f"| {title} | {' | '.join(row.values())} |" for title, row in cells.items()]
        return "\n".join([*lines, "", *self._notes(), *(f"- {reason}" for reason in self._obstacles())])

    def draw(self, file: Path) -> None:
        """Draws a PNG: where the time of an answer goes in each row, and the share of right answers.

        Raises ConfigError without times or without matplotlib, and OSError.
        """
        try:
            from litevlm_ros.lab.charts import StackedBars, draw_table
        except ImportError as error:
            raise ConfigError(f"--chart needs matplotlib ({error}): `{pip_command('matplotlib')}`") from error
        timed = self._timed
        if not timed:
            raise ConfigError("--chart needs times, and none were measured. Ask for some --latency-questions")
        labels, shares = [], []
        for name, row in timed.items():
            faster, right = self.speed_up(name), self.accuracy.get(name, RowAccuracy()).right
            labels.append(f"{row.total_ms:.1f} ms" + (f", {faster:.2f}x" if faster and name != BASE else ""))
            low, high = (100 * bound for bound in right.interval)
            shares.append(None if right.value is None else (100 * right.value, low, high))
        parts = {stage: [getattr(row, f"{stage}_ms") for row in timed.values()] for stage in _STAGES}
        draw_table(StackedBars([self.titles[name] for name in timed], parts, labels), shares, file)

    @property
    def _timed(self) -> dict[str, RowLatency]:
        """The rows that have times, in the table's order."""
        return {
            name: self.latency[name] for name in self.titles if name in self.latency and self.latency[name].questions
        }

    def _right(self, name: str) -> list[bool]:
        return self.accuracy.get(name, RowAccuracy()).outcomes

    def _cells(self, name: str) -> dict[str, str]:
        """Returns the text of each column."""
        accuracy, latency = self.accuracy.get(name, RowAccuracy()), self._timed.get(name)
        views = accuracy.views if accuracy.given else float(_VIEWS) if name == REFERENCE else None
        tokens = accuracy.visual_tokens if accuracy.given else None
        if views is not None and latency:  # those of the model that was timed
            tokens = views * latency.tokens_per_view
        cells = {
            "views kept": "-" if views is None else f"{views:.2f}",
            "visual tokens": "-" if tokens is None else f"{tokens:.0f}",
        }
        for stage in _STAGES:
            digits = 2 if stage == "select" else 1
            cells[f"{stage} ms"] = f"{getattr(latency, f'{stage}_ms'):.{digits}f}" if latency else "-"
        cells["total ms"] = f"{latency.total_ms:.1f}" if latency else "-"
        against = {BASE: "speed of base", REFERENCE: "speed of transformers"}
        for other, title in against.items():
            if other == BASE or other in self.titles:
                faster = self.speed_up(name, other)
                cells[title] = "-" if faster is None or name == other else f"{faster:.2f}x"
        low, high = (100 * bound for bound in accuracy.right.interval)
        cells["accuracy %"] = f"{accuracy.right.percent} ({low:.1f} to {high:.1f})" if accuracy.given else "-"
        lost = self.lost_points(name)
        cells["points lost"] = (
            "-" if lost is None or name == BASE else f"{lost[0]:.1f} ({lost[1]:.1f} to {lost[2]:.1f})"
        )
        return cells

    def _notes(self) -> list[str]:
        """Returns sentences about where the figures come from."""
        source = self.accuracy_from
        notes = [f"Accuracy: {source.questions} questions, {source.model}, {source.machine}; 95 % intervals."]
        if self.latency_from:
            source = self.latency_from
            notes.append(
                f"Milliseconds: means of {source.questions} questions about new frames, {source.model}, "
                f"{source.machine}. Each row says what it said for accuracy. The time for choosing views was measured "
                "with the accuracy."
            )
        if REFERENCE in self._timed:
            notes.append(
                f"{self.titles[REFERENCE]}: {self._timed[REFERENCE].backend}. It answers the base's questions about "
                "the same frames with as many tokens."
            )
        better = self.over_random()
        if better:
            points, low, high = better
            notes.append(f"Token selection is {points:.1f} points ({low:.1f} to {high:.1f}) better than random tokens.")
        return notes

    def _obstacles(self) -> list[str]:
        """Returns a line for each reason, with the rows and the half that it concerns."""
        found: dict[str, list[str]] = {}
        for half, figures in (("accuracy", self.accuracy), ("latency", self.latency)):
            for name, row in figures.items():
                if row.obstacle:
                    found.setdefault(row.obstacle, []).append(f"{half} of {self.titles[name]}")
        return [f"No {', '.join(rows)}: {reason}" for reason, rows in found.items()]
