"""The record of a soak: memory, latencies and answers over time, and the findings that something is not well."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import thread_time
from typing import Any

import numpy as np
import psutil

from litevlm_ros.errors import LiteVLMError

MOST_MEMORY_CHANGE = 0.02
"""Largest change of the node's resident memory that counts as flat, as a share of it.

It is taken after the warm-up, between the medians of any two parts of the time."""

MOST_DRIFT = 0.10
"""Largest growth of the median latency that is no drift, as a share of it.

It is taken from the first to the last quarter of the time after the warm-up, beyond the machine's own."""

WARM_UP_SHARE, WARM_UP_SECONDS = 0.25, 120.0
"""The warm-up is this share of the time, at most so many seconds: caches fill, each shape runs for the first time."""

_PARTS = 8
_LONGEST_GAP = 30.0
"""Longest time in seconds without a caption of a camera."""

Series = list[tuple[float, float]]
"""(seconds since the beginning, value)."""


@dataclass(frozen=True)
class Usage:
    """The resources that a process has at a moment.

    `resident_mb` is in MB of 10^6 bytes, `cpu_seconds` since the process began; `threads` and open `files` are counts.
    """

    resident_mb: float
    cpu_seconds: float
    threads: int
    files: int

    @classmethod
    def of(cls, process_id: int) -> Usage:
        """Asks the system. Raises LiteVLMError if there is no such process."""
        try:
            process = psutil.Process(process_id)
            with process.oneshot():
                times = process.cpu_times()
                return cls(
                    resident_mb=process.memory_info().rss / 1e6,
                    cpu_seconds=times.user + times.system,
                    threads=process.num_threads(),
                    files=process.num_fds(),
                )
        except psutil.Error as error:
            raise LiteVLMError(f"process {process_id} cannot be watched: {error}") from error


_VALUES = np.random.default_rng(0).random((512, 512), np.float32)


def yardstick_ms() -> float:
    """Returns the CPU time in ms of work that is always the same, about ten ms: arithmetic, memory and Python.

    It shows how fast the machine is at a moment, whatever the node does: other tenants of a server slow it down.
    """
    began = thread_time()
    for _ in range(20):
        np.exp(_VALUES).sum()
    sum(range(200_000))
    return 1e3 * (thread_time() - began)


@dataclass
class Record:
    """All that is noted during a soak. Times are in seconds since the beginning, latencies in ms.

    `yardstick` has the values of yardstick_ms(). `captions` are timed from the arrival of the frame to the complete
    caption, `answers` from the client's question to the response that it gets. `failures` counts questions without an
    answer by the reason given. `node_log` has the node's lines about faults and, at its end, about its cameras.
    """

    seconds: float
    usage: list[tuple[float, Usage]] = field(default_factory=list)
    yardstick: Series = field(default_factory=list)
    captions: Series = field(default_factory=list)
    caption_times: dict[str, list[float]] = field(default_factory=dict)
    answers: Series = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    node_log: list[str] = field(default_factory=list)

    @property
    def warm_up(self) -> float:
        """Length of the warm-up in seconds."""
        return min(WARM_UP_SHARE * self.seconds, WARM_UP_SECONDS)

    def memory(self) -> Series:
        """Returns the node's resident memory in MB over time."""
        return [(time, usage.resident_mb) for time, usage in self.usage]

    def figures(self) -> dict[str, float]:
        """Returns the numbers that findings() judges, and some beside them, after the warm-up."""
        parts = _split(self._warm(self.memory()), self.warm_up, self.seconds, _PARTS)
        memory = [float(np.median(part)) for part in parts]
        typical = float(np.median(memory))
        figures = {
            "memory_mb": typical,
            "memory_change": (max(memory) - min(memory)) / typical,
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
            values = [value for _, value in self._warm(series)]
            if medians := self._early_and_late(series):
                early, late = figures[f"{name}_ms_early"], figures[f"{name}_ms_late"] = medians
                figures[f"{name}_drift"] = late / early / slower - 1
                figures[f"{name}_ms_p50"], figures[f"{name}_ms_p95"] = np.percentile(values, (50, 95)).tolist()
        return figures

    def _early_and_late(self, series: Series) -> tuple[float, float] | None:
        """Returns the medians of the first and the last quarter; None if a quarter is empty."""
        quarters = _split(self._warm(series), self.warm_up, self.seconds, 4)
        return (float(np.median(quarters[0])), float(np.median(quarters[-1]))) if len(quarters) == 4 else None

    def findings(self, cameras: Sequence[str]) -> list[str]:
        """Returns in words what is not as it should be; an empty list if all is well."""
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
        """Returns everything for a JSON file."""
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


def soak_table(figures: Mapping[str, float]) -> str:
    """Returns the figures as text."""
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
    """Groups values by the part of the time that they belong to, without parts that have none."""
    length = (end - start) / parts
    groups: list[list[float]] = [[] for _ in range(parts)]
    for time, value in series:
        groups[min(parts - 1, max(0, int((time - start) / length)))].append(value)
    return [group for group in groups if group]
