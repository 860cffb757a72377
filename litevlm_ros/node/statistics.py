"""Outcomes and timings of questions and captions. Any thread may read them at any time."""

from __future__ import annotations

import math
from collections import Counter, deque
from concurrent.futures import CancelledError
from dataclasses import asdict, fields
from enum import Enum

import numpy as np

from litevlm_ros.errors import BusyError, DeadlineError, LiteVLMError, NoFrameError
from litevlm_ros.types import Answer, Timings


class Outcome(str, Enum):
    """The way a job ended, or the reason why it never began."""

    DONE = "done"
    NO_FRAME = "no usable frame"
    BUSY = "refused, queue full"
    EXPIRED = "deadline passed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted by a question"
    FAILED = "failed"


def outcome_of(error: BaseException | None) -> Outcome:
    """Returns the outcome of a job that ended with this exception, or without one."""
    if error is None:
        return Outcome.DONE
    causes = {
        NoFrameError: Outcome.NO_FRAME,
        BusyError: Outcome.BUSY,
        DeadlineError: Outcome.EXPIRED,
        CancelledError: Outcome.CANCELLED,
    }
    return next((outcome for cause, outcome in causes.items() if isinstance(error, cause)), Outcome.FAILED)


class Recent:
    """The newest of a series of numbers."""

    def __init__(self, count: int = 200) -> None:
        """Keeps the last `count` numbers."""
        self._numbers: deque[float] = deque(maxlen=count)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: float) -> None:
        """Adds a number and drops the oldest one if there are too many."""
        self._numbers.append(number)

    def percentile(self, percent: float) -> float:
        """Returns numpy's percentile of the numbers, which interpolates between neighbours; NaN if there are none."""
        numbers = self._numbers.copy()
        return float(np.percentile(numbers, percent)) if numbers else math.nan


class Rate:
    """The mean rate at which a count grows, over the last few looks at it."""

    def __init__(self, looks: int = 6) -> None:
        """Averages over the last `looks` looks."""
        self._looks: deque[tuple[float, int]] = deque(maxlen=looks)

    def look(self, seconds: float, count: int) -> None:
        """Takes the count at a time in seconds on any steady clock. A count that became smaller starts a new series."""
        if self._looks and count < self._looks[-1][1]:
            self._looks.clear()
        self._looks.append((seconds, count))

    @property
    def per_second(self) -> float:
        """The rate; NaN before the second look."""
        if len(self._looks) < 2:
            return math.nan
        (first, before), (last, count) = self._looks[0], self._looks[-1]
        return (count - before) / (last - first) if last > first else math.nan


class JobStatistics:
    """Figures of all questions, or of all captions, since the model was loaded."""

    def __init__(self) -> None:
        self.waiting = 0
        """Number of jobs that wait now."""
        self.outcomes: Counter[Outcome] = Counter()
        self.last_failure = ""
        """The error of the last job that FAILED, with the fix if it has one; '' if none did."""
        self.timings = {field.name: Recent() for field in fields(Timings)}
        """Milliseconds of the last jobs, for each stage in `Timings`."""
        self.generated_tokens = 0
        self.drafted_tokens = 0
        self.accepted_tokens = 0

    def end(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Counts a job that has ended."""
        if outcome is Outcome.FAILED:
            self.last_failure = str(error) if isinstance(error, LiteVLMError) else f"internal error: {error!r}"
        self.outcomes[outcome] += 1

    def add(self, answer: Answer) -> None:
        """Adds the timings and tokens of a complete answer."""
        for stage, milliseconds in asdict(answer.timings).items():
            self.timings[stage].add(milliseconds)
        self.generated_tokens += answer.tokens.generated
        self.drafted_tokens += answer.speculation.drafted
        self.accepted_tokens += answer.speculation.accepted

    def summary(self) -> str:
        """Returns one line for the log."""
        outcomes = ", ".join(f"{count} {outcome.value}" for outcome, count in self.outcomes.items()) or "none"
        total = self.timings["total"]
        if not len(total):
            return outcomes
        return f"{outcomes}; median {total.percentile(50):.0f} ms, 95 % within {total.percentile(95):.0f} ms"
