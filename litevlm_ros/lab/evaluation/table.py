"""Both halves of the table in one: figures of each row, where they come from, and the same as JSON and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from litevlm_ros.lab.evaluation.share import paired_loss
from litevlm_ros.lab.evaluation.table_accuracy import RowAccuracy
from litevlm_ros.lab.evaluation.table_latency import RowLatency
from litevlm_ros.lab.evaluation.table_rows import TableRow

_COLUMNS = (
    "views kept", "visual tokens", "vision ms", "select ms", "prefill ms", "ms/token", "decode ms", "total ms",
    "accuracy %", "points lost",
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """Where one half was measured: machine and model in words. The `questions` are those of `seed`."""

    machine: str
    model: str
    seed: int
    questions: int


@dataclass(frozen=True)
class Table:
    """Rows by their names. `latency` has none where none was measured."""

    titles: Mapping[str, str]
    accuracy: Mapping[str, RowAccuracy]
    accuracy_origin: Origin
    latency: Mapping[str, RowLatency]
    latency_origin: Origin | None

    @classmethod
    def of(
        cls,
        rows: Sequence[TableRow],
        accuracy: tuple[Mapping[str, RowAccuracy], Origin],
        latency: tuple[Mapping[str, RowLatency], Origin] | None,
    ) -> Table:
        """Puts two halves together."""
        titles = {row.name: row.title for row in rows}
        return cls(titles, *accuracy, *(latency or ({}, None)))

    def speed_up(self, name: str) -> float | None:
        """How many times faster than the base an answer is there; None where either was not measured."""
        row, base = self.latency.get(name), self.latency.get("base")
        return base.total_ms / row.total_ms if row and base and row.questions and base.questions else None

    def lost_points(self, name: str) -> tuple[float, float, float] | None:
        """Accuracy lost against the base with its 95 % interval; None where either was not measured."""
        row, base = self.accuracy[name].outcomes, self.accuracy["base"].outcomes
        return paired_loss(base, row) if row and base else None

    def over_random(self) -> tuple[float, float, float] | None:
        """Points that token selection is better than random tokens, with the 95 % interval; None if not measured."""
        chosen, random = (
            self.accuracy.get(name, RowAccuracy()).outcomes for name in ("token_selection", "random_tokens")
        )
        return paired_loss(chosen, random) if chosen and random else None

    def json(self) -> dict[str, Any]:
        """Everything but the answers."""
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
            "accuracy_from": asdict(self.accuracy_origin),
            "latency_from": asdict(self.latency_origin) if self.latency_origin else None,
        }

    def markdown(self) -> str:
        """The table, where its halves come from, and why figures are missing."""
        lines = [f"| | {' | '.join(_COLUMNS)} |", f"|{'---|' * (1 + len(_COLUMNS))}"]
        lines += [f"| {title} | {' | '.join(self._cells(name))} |" for name, title in self.titles.items()]
        origin = self.accuracy_origin
        notes = [f"Accuracy: {origin.questions} questions, {origin.model}, {origin.machine}; 95 % intervals."]
        if self.latency_origin:
            origin = self.latency_origin
            notes.append(
                f"Milliseconds: means of {origin.questions} questions about new frames, {origin.model}, "
                f"{origin.machine}. Each row says what it said for accuracy. The total has preprocessing too."
            )
        better = self.over_random()
        if better:
            points, low, high = better
            notes.append(f"Token selection is {points:.1f} points ({low:.1f} to {high:.1f}) better than random tokens.")
        return "\n".join([*lines, "", *notes, *(f"- {reason}" for reason in self._obstacles())])

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
        """One for each reason, with the rows and the half that it concerns."""
        found: dict[str, list[str]] = {}
        for half, figures in (("accuracy", self.accuracy), ("latency", self.latency)):
            for name, row in figures.items():
                if row.obstacle:
                    found.setdefault(row.obstacle, []).append(f"{half} of {self.titles[name]}")
        return [f"No {', '.join(rows)}: {reason}" for reason, rows in found.items()]
