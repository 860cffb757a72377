"""What becomes of questions and captions, and how long they take: figures that any thread may read at any time."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import CancelledError
from dataclasses import asdict, fields
from enum import Enum

from litevlm_ros.errors import BusyError, DeadlineError, NoFrameError
from litevlm_ros.types import Answer, Timings


class Outcome(str, Enum):
    """How a job ended, or why it never began."""

    DONE = "done"
    NO_FRAME = "no usable frame"
    BUSY = "refused, queue full"
    EXPIRED = "deadline passed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted by a question"
    FAILED = "failed"


def outcome_of(error: BaseException | None) -> Outcome:
    """The outcome of a job that ended with this exception, or without one."""
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
    """The last few of many numbers."""

    def __init__(self, count: int = 200, numbers: Iterable[float] = ()) -> None:
        """Keeps the last `count`."""
        self._numbers = deque(numbers, count)

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: float) -> None:
        """One more; the oldest goes."""
        self._numbers.append(number)

    def percentile(self, percent: float) -> float:
        """The smallest number that `percent` % of them do not exceed; NaN while there is none."""
        ordered = sorted(self._numbers.copy())
        if not ordered:
            return math.nan
        return ordered[min(len(ordered), max(1, math.ceil(percent / 100 * len(ordered)))) - 1]


class Rate:
    """How fast a count grows: a mean over the last few looks at it."""

    def __init__(self, looks: int = 6) -> None:
        """Keeps the last `looks`."""
        self._looks: deque[tuple[float, int]] = deque(maxlen=looks)

    def look(self, seconds: float, count: int) -> None:
        """The count at a moment on any steady clock. One that is smaller than before was begun anew."""
        if self._looks and count < self._looks[-1][1]:
            self._looks.clear()
        self._looks.append((seconds, count))

    @property
    def per_second(self) -> float:
        """NaN before the second look."""
        if len(self._looks) < 2:
            return math.nan
        (first, before), (last, count) = self._looks[0], self._looks[-1]
        return (count - before) / (last - first) if last > first else math.nan


class JobStatistics:
    """Of all questions, or of all captions, since the model was loaded."""

    def __init__(self) -> None:
        self.waiting = 0
        """Now."""
        self.outcomes: Counter[Outcome] = Counter()
        self.timings = {field.name: Recent() for field in fields(Timings)}
        """Milliseconds of each stage of the last ones, by the names in `Timings`: `queue` is the wait, `total` all."""
        self.generated_tokens = 0
        self.drafted_tokens = 0
        self.accepted_tokens = 0

    def add(self, answer: Answer) -> None:
        """An answer that is complete."""
        for stage, milliseconds in asdict(answer.timings).items():
            self.timings[stage].add(milliseconds)
        self.generated_tokens += answer.tokens.generated
        self.drafted_tokens += answer.speculation.drafted
        self.accepted_tokens += answer.speculation.accepted

    def summary(self) -> str:
        """One line for the log."""
        outcomes = ", ".join(f"{count} {outcome.value}" for outcome, count in self.outcomes.items()) or "none"
        total = self.timings["total"]
        if not len(total):
            return outcomes
        return f"{outcomes}; median {total.percentile(50):.0f} ms, 95 % within {total.percentile(95):.0f} ms"
