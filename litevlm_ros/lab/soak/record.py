"""What was seen during a soak, and whether that is as it should be."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from litevlm_ros.lab.soak.usage import Usage

MOST_MEMORY_CHANGE = 0.02
"""Of the node's resident memory after the warm-up, between the medians of any two parts of the time."""

MOST_DRIFT = 0.10
"""Of the median latency from the first to the last quarter of the time after the warm-up, beyond the machine's own."""

WARM_UP_SHARE, WARM_UP_SECONDS = 0.25, 120.0
"""The warm-up is this share of the time, at most so many seconds: caches fill, each shape runs for the first time."""

_PARTS = 8
_LONGEST_GAP = 30.0
"""Seconds without a caption of a camera."""

Series = list[tuple[float, float]]
"""(seconds since the beginning, value)."""


@dataclass
class Record:
    """Times in seconds since the beginning, latencies in ms."""

    seconds: float
    usage: list[tuple[float, Usage]] = field(default_factory=list)
    yardstick: Series = field(default_factory=list)
    """What the same work takes: see yardstick_ms()."""
    captions: Series = field(default_factory=list)
    """From the arrival of the frame to the complete caption."""
    caption_times: dict[str, list[float]] = field(default_factory=dict)
    answers: Series = field(default_factory=list)
    """From the question of the client to the response that it gets."""
    failures: Counter[str] = field(default_factory=Counter)
    """Questions without an answer, by the reason told."""
    node_log: list[str] = field(default_factory=list)
    """The node's lines about faults and, at its end, about its cameras."""

    @property
    def warm_up(self) -> float:
        """Seconds."""
        return min(WARM_UP_SHARE * self.seconds, WARM_UP_SECONDS)

    def memory(self) -> Series:
        """Resident MB."""
        return [(time, usage.resident_mb) for time, usage in self.usage]

    def figures(self) -> dict[str, float]:
        """The numbers that findings() is about, and some beside them. After the warm-up only, where there is any."""
        parts = _split(self._warm(self.memory()), self.warm_up, self.seconds, _PARTS)
        memory = [statistics.median(part) for part in parts]
        figures = {
            "memory_mb": statistics.median(memory),
            "memory_change": (max(memory) - min(memory)) / statistics.median(memory),
            "captions": len(self.captions),
            "answers": len(self.answers),
            "failures": sum(self.failures.values()),
            "threads": max(usage.threads for _, usage in self.usage),
            "files": max(usage.files for _, usage in self.usage),
        }
        (start, first), (end, last) = self.usage[0], self.usage[-1]
        figures["cpus"] = (last.cpu_seconds - first.cpu_seconds) / max(1e-9, end - start)
        machine = self._early_and_late(self.yardstick)
        slower = machine[1] / machine[0] if machine else 1.0
        figures["machine_drift"] = slower - 1
        for name, series in (("caption", self.captions), ("answer", self.answers)):
            values = sorted(value for _, value in self._warm(series))
            if medians := self._early_and_late(series):
                early, late = figures[f"{name}_ms_early"], figures[f"{name}_ms_late"] = medians
                figures[f"{name}_drift"] = late / early / slower - 1
                figures[f"{name}_ms_p50"] = statistics.median(values)
                figures[f"{name}_ms_p95"] = values[int(0.95 * len(values))]
        return figures

    def _early_and_late(self, series: Series) -> tuple[float, float] | None:
        """Medians of the first and the last quarter; None where a quarter is empty."""
        quarters = _split(self._warm(series), self.warm_up, self.seconds, 4)
        return (statistics.median(quarters[0]), statistics.median(quarters[-1])) if len(quarters) == 4 else None

    def findings(self, cameras: Sequence[str]) -> list[str]:
        """What is not as it should be, in words; empty if all is well."""
        figures = self.figures()
        found = []
        if figures["memory_change"] > MOST_MEMORY_CHANGE:
            found.append(f"the node's memory changed by {figures['memory_change']:.1%} after the warm-up; at most "
                         f"{MOST_MEMORY_CHANGE:.0%} is flat")  # fmt: skip
        for name in ("caption", "answer"):
            drift = figures.get(f"{name}_drift")
            if drift is None:
                found.append(f"too few {name}s to compare")
            elif drift > MOST_DRIFT:
                found.append(f"{name}s took {drift:.1%} longer in the last quarter than in the first, beyond what "
                             f"the machine became slower; at most {MOST_DRIFT:.0%} is no drift")  # fmt: skip
        for reason, count in self.failures.most_common(3):
            found.append(f"{count} questions were not answered: {reason}")
        for camera in cameras:
            times = [0.0, *self.caption_times.get(camera, ()), self.seconds]
            gap = max(after - before for before, after in itertools.pairwise(times))
            if gap > _LONGEST_GAP:
                found.append(f"{camera} had no caption for {gap:.0f} s")
        found += [f"the node's log says: {line}" for line in self.node_log if "Traceback" in line or "[ERROR]" in line]
        return found

    def json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "seconds": self.seconds,
            "warm_up_seconds": self.warm_up,
            "figures": self.figures(),
            "yardstick": self.yardstick,
            "usage": [{"time": time, **asdict(usage)} for time, usage in self.usage],
            "captions": self.captions,
            "answers": self.answers,
            "failures": dict(self.failures),
            "node_log": self.node_log,
        }

    def _warm(self, series: Series) -> Series:
        return [(time, value) for time, value in series if time >= self.warm_up]


def table(figures: Mapping[str, float]) -> str:
    """Figures as text."""
    lines = [
        f"node's memory: {figures['memory_mb']:.1f} MB, changed by {figures['memory_change']:.2%} after the warm-up",
        f"node: {figures['cpus']:.2f} CPUs, {figures['threads']:.0f} threads, {figures['files']:.0f} files at most",
    ]
    for name in ("caption", "answer"):
        line = f"{name}s: {figures[f'{name}s']:.0f}"
        if f"{name}_drift" in figures:
            line += (f"; median {figures[f'{name}_ms_p50']:.0f} ms, 95 % within {figures[f'{name}_ms_p95']:.0f} ms; "
                     f"first quarter {figures[f'{name}_ms_early']:.0f}, last {figures[f'{name}_ms_late']:.0f} ms "
                     f"({figures[f'{name}_drift']:+.1%} beyond the machine's own)")  # fmt: skip
        lines.append(line)
    lines.append(f"the machine: the same work took {figures['machine_drift']:+.1%} in the last quarter")
    lines.append(f"questions without an answer: {figures['failures']:.0f}")
    return "\n".join(lines)


def _split(series: Series, start: float, end: float, parts: int) -> list[list[float]]:
    """Values by the part of the time they belong to, without parts that have none."""
    length = (end - start) / parts
    groups: list[list[float]] = [[] for _ in range(parts)]
    for time, value in series:
        groups[min(parts - 1, max(0, int((time - start) / length)))].append(value)
    return [group for group in groups if group]
