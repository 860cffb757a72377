"""All charts of the tools, as PNG files. Only this file imports matplotlib; it takes plain numbers and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Series = Sequence[tuple[float, float]]
"""Points (seconds since the beginning, value)."""

_DPI = 110


@dataclass(frozen=True)
class StackedBars:
    """Horizontal bars, each a sum of times in ms.

    `parts` has, by name, the length of that part in each bar. `labels` stand behind the bars.
    """

    names: Sequence[str]
    parts: Mapping[str, Sequence[float]]
    labels: Sequence[str]


def draw_comparison(panels: Mapping[str, StackedBars], file: Path) -> None:
    """Draws one panel of stacked bars under each title, side by side. Raises OSError."""
    bars = [len(panel.names) for panel in panels.values()]
    figure = Figure(figsize=(7 * len(bars), 1.5 + 0.5 * sum(bars) / len(bars)), layout="constrained")
    axes = figure.subplots(1, len(bars), squeeze=False)[0]
    for panel, (title, stacked) in zip(axes, panels.items(), strict=True):
        _draw_bars(panel, stacked)
        panel.set(xlabel="ms", title=title)
        panel.margins(x=0.15)
    axes[-1].legend(loc="upper right" if sum(bars) == 1 else "lower right")
    _save(figure, file)


def draw_table(bars: StackedBars, shares: Sequence[tuple[float, float, float] | None], file: Path) -> None:
    """Draws the time of an answer in each row of the table and, beside it, the share of right answers.

    `shares` has for each bar the percentage and both ends of its 95 % interval, or None. Raises OSError.
    """
    figure = Figure(figsize=(12, 1.6 + 0.5 * len(bars.names)), layout="constrained")
    times, right = figure.subplots(1, 2, width_ratios=(3, 1))
    _draw_bars(times, bars)
    times.set(xlabel="ms for an answer about six views")
    times.margins(x=0.2)
    times.legend(fontsize=8, loc="lower right")
    for index, share in enumerate(shares):
        if share is not None:
            value, low, high = share
            right.errorbar(value, index, xerr=[[value - low], [high - value]], fmt="o", color="black", capsize=3)
    right.set(xlabel="right answers, % (95 %)", yticks=range(len(shares)), yticklabels=[])
    for panel in (times, right):
        panel.set_ylim(len(shares) - 0.5, -0.5)
    right.grid(axis="x", alpha=0.3)
    _save(figure, file)


def draw_soak(
    title: str,
    seconds: float,
    warm_up: float,
    *,
    memory: Series,
    latencies: Mapping[str, Series],
    machine: Series,
    file: Path,
) -> None:
    """Draws a soak of `seconds` over minutes: memory in MB, latencies in ms by name, and the machine's speed in CPU ms.

    The first `warm_up` seconds are shaded. Latencies are drawn as points and as medians, 60 of them over the whole
    time. Raises OSError.
    """
    figure = Figure(figsize=(9, 7), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3, 4, 2))
    figure.suptitle(title)
    _draw_series(top, memory, label="node")
    top.set(ylabel="resident memory, MB", ylim=(0, None))
    step = seconds / 60
    for index, (name, series) in enumerate(latencies.items()):
        _draw_series(middle, series, color=f"C{index}", alpha=0.15, marker=".", markersize=3, linestyle="")
        _draw_series(middle, _medians(series, step), color=f"C{index}", label=f"{name}, medians of {len(series)}")
    values = [value for series in latencies.values() for _, value in series]
    middle.set(ylabel="latency, ms", ylim=(0, 1.3 * np.percentile(values, 99) if values else 1))
    _draw_series(bottom, _medians(machine, step), color="C2", label="the same work, medians")
    bottom.set(xlabel="minutes", ylabel="machine, CPU ms", ylim=(0, None))
    for panel in (top, middle, bottom):
        panel.axvspan(0, warm_up / 60, color="0.92", label="warm-up")
        panel.grid(alpha=0.3)
        panel.legend(loc="upper right" if panel is middle else "lower right")
    _save(figure, file)


def draw_training(log: Sequence[Mapping[str, float]], losses: Sequence[str], shares: Sequence[str], file: Path) -> None:
    """Draws the log of a training run: its losses, and its shares (0 to 1) of held-out answers that are exactly right.

    Each row of `log` has a 'step' and the losses; only some have the shares. Raises OSError.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in losses:
        left.plot([row["step"] for row in log], [row[name] for row in log], label=name)
    left.set(xlabel="step", ylabel="cross entropy", yscale="log", title="training loss")
    left.legend()
    checked = [row for row in log if shares[0] in row]
    for name in shares:
        right.plot([row["step"] for row in checked], [100 * row[name] for row in checked], label=name.replace("_", " "))
    right.set(xlabel="step", ylabel="exactly right, %", title="held-out scenes (teacher forced)")
    right.legend()
    _save(figure, file)


def _draw_bars(panel: Axes, bars: StackedBars) -> None:
    ends = np.zeros(len(bars.names))
    for name, lengths in bars.parts.items():
        panel.barh(list(bars.names), list(lengths), left=ends, label=name)
        ends = ends + lengths
    for index, label in enumerate(bars.labels):
        panel.text(ends[index], index, f" {label}", va="center", fontsize=8)


def _draw_series(panel: Axes, series: Series, **style: Any) -> None:
    panel.plot([time / 60 for time, _ in series], [value for _, value in series], **style)


def _medians(series: Series, step: float) -> list[tuple[float, float]]:
    """Returns one median for each `step` seconds that have any value."""
    groups: dict[int, list[float]] = {}
    for time, value in series:
        groups.setdefault(int(time / step), []).append(value)
    return [((index + 0.5) * step, float(np.median(values))) for index, values in sorted(groups.items())]


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=_DPI)
