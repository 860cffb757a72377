"""A comparison as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from litevlm_ros.lab.benchmarking.comparison import Comparison, Row


def draw_comparison(comparison: Comparison, file: Path) -> None:
    """A PNG: for each number of views, where the time of an answer goes, from the slowest to the fastest."""
    views = sorted({row.views for row in comparison.rows})
    figure = Figure(figsize=(7 * len(views), 1.5 + 0.5 * len(comparison.rows) / len(views)), layout="constrained")
    panels = figure.subplots(1, len(views), squeeze=False)[0]
    for panel, count in zip(panels, views, strict=True):
        rows = sorted((row for row in comparison.rows if row.views == count), key=lambda row: row.times["total"])
        names = [row.name for row in rows]
        left = [0.0] * len(rows)
        for title, part in (("vision", _vision), ("prefill", _prefill), ("decode", _decode), ("rest", _rest)):
            values = [part(row, comparison.tokens) for row in rows]
            panel.barh(names, values, left=left, label=title)
            left = [start + value for start, value in zip(left, values, strict=True)]
        for index, row in enumerate(rows):
            panel.text(row.times["total"], index, f" {row.times['total']:.1f} ms", va="center", fontsize=8)
        panel.set(
            xlabel="ms", title=f"{count} view{'s' * (count > 1)}, {rows[0].prompt_tokens} + {comparison.tokens} tokens"
        )
        panel.margins(x=0.15)
    panels[-1].legend(loc="upper right" if len(comparison.rows) == 1 else "lower right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _vision(row: Row, tokens: int) -> float:
    return row.times["vision"]


def _prefill(row: Row, tokens: int) -> float:
    return row.times["prefill"]


def _decode(row: Row, tokens: int) -> float:
    return row.times["decode_token"] * max(1, tokens - 1)


def _rest(row: Row, tokens: int) -> float:
    return max(0.0, row.times["total"] - _vision(row, tokens) - _prefill(row, tokens) - _decode(row, tokens))
