"""The table as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from litevlm_ros.errors import ConfigError
from litevlm_ros.lab.evaluation.table import Table
from litevlm_ros.lab.evaluation.table_latency import RowLatency

_STAGES = ("preprocess", "vision", "select", "prefill", "decode")


def draw_table(table: Table, file: Path) -> None:
    """A PNG: where the time of an answer goes in each row, and how much is right. Raises ConfigError without times."""
    timed = {name: row for name, row in table.latency.items() if row.questions}
    if not timed:
        raise ConfigError("--chart needs times, and none were measured. Ask for some --latency-questions")
    figure = Figure(figsize=(12, 1.6 + 0.5 * len(timed)), layout="constrained")
    times, shares = figure.subplots(1, 2, width_ratios=(3, 1))
    names = [table.titles[name] for name in timed]
    left = [0.0] * len(timed)
    for stage in _STAGES:
        values = [_milliseconds(row, stage) for row in timed.values()]
        times.barh(names, values, left=left, label=stage)
        left = [start + value for start, value in zip(left, values, strict=True)]
    for index, (name, row) in enumerate(timed.items()):
        faster = table.speed_up(name)
        label = f" {row.total_ms:.1f} ms" + (f", {faster:.2f}x" if faster and name != "base" else "")
        times.text(left[index], index, label, va="center", fontsize=8)
    times.set(xlabel="ms for an answer about six views")
    times.margins(x=0.2)
    times.legend(fontsize=8, loc="lower right")
    for index, name in enumerate(timed):
        share = table.accuracy[name].right
        if share.value is not None:
            low, high = share.interval
            reach = [[100 * (share.value - low)], [100 * (high - share.value)]]
            shares.errorbar(100 * share.value, index, xerr=reach, fmt="o", color="black", capsize=3)
    shares.set(xlabel="right answers, % (95 %)", yticks=range(len(timed)), yticklabels=[])
    for panel in (times, shares):
        panel.set_ylim(len(timed) - 0.5, -0.5)
    shares.grid(axis="x", alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _milliseconds(row: RowLatency, stage: str) -> float:
    value: float = getattr(row, f"{stage}_ms")
    return value
