"""A soak as a picture."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from litevlm_ros.lab.soak.record import Record, Series


def draw(record: Record, title: str, file: Path) -> None:
    """A PNG over time in minutes: the node's memory, latencies of captions and answers, and the machine's speed."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    memory, latency, machine = figure.subplots(3, 1, sharex=True, height_ratios=(3, 4, 2))
    figure.suptitle(title)
    _plot(memory, record.memory(), label="node")
    memory.set(ylabel="resident memory, MB", ylim=(0, None))
    step = record.seconds / 60
    for name, series, colour in (("captions", record.captions, "C0"), ("answers", record.answers, "C1")):
        _plot(latency, series, color=colour, alpha=0.15, marker=".", markersize=3, linestyle="")
        _plot(latency, _medians(series, step), color=colour, label=f"{name}, medians of {len(series)}")
    values = sorted(value for _, value in (*record.captions, *record.answers))
    latency.set(ylabel="latency, ms", ylim=(0, 1.3 * values[int(0.99 * len(values))] if values else 1))
    _plot(machine, _medians(record.yardstick, step), color="C2", label="the same work, medians")
    machine.set(xlabel="minutes", ylabel="machine, CPU ms", ylim=(0, None))
    for panel in (memory, latency, machine):
        panel.axvspan(0, record.warm_up / 60, color="0.92", label="warm-up")
        panel.grid(alpha=0.3)
        panel.legend(loc="upper right" if panel is latency else "lower right")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _plot(panel: Axes, series: Series, **style: Any) -> None:
    """Seconds are drawn as minutes."""
    panel.plot([time / 60 for time, _ in series], [value for _, value in series], **style)


def _medians(series: Series, step: float) -> Series:
    """One value for each `step` seconds that has any."""
    groups: dict[int, list[float]] = {}
    for time, value in series:
        groups.setdefault(int(time / step), []).append(value)
    return [((index + 0.5) * step, statistics.median(values)) for index, values in sorted(groups.items())]
