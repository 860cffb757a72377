from __future__ import annotations

import math
from concurrent.futures import CancelledError

import pytest

from litevlm_ros.errors import BusyError, DeadlineError, EngineError, NoFrameError
from litevlm_ros.node.statistics import JobStatistics, Outcome, Rate, Recent, outcome_of
from litevlm_ros.types import Answer, FinishReason, Speculation, Timings, TokenCounts


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 50.5), (95, 95.05), (100, 100)])
def test_percentiles(percent: float, value: float) -> None:
    recent = Recent()
    for number in range(100, 0, -1):
        recent.add(number)
    assert recent.percentile(percent) == pytest.approx(value)


def test_only_the_last_ones_count() -> None:
    recent = Recent(3)
    assert math.isnan(recent.percentile(50))
    for number in (9, 1, 2, 3):
        recent.add(number)
    assert (len(recent), recent.percentile(100), recent.percentile(0)) == (3, 3, 1)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.DONE),
        (NoFrameError(), Outcome.NO_FRAME),
        (BusyError(), Outcome.BUSY),
        (DeadlineError(), Outcome.EXPIRED),
        (CancelledError(), Outcome.CANCELLED),
        (EngineError(), Outcome.FAILED),
        (KeyError(), Outcome.FAILED),
    ],
)
def test_outcomes(error: BaseException | None, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome


def test_answers_add_up() -> None:
    statistics = JobStatistics()
    for total in (10.0, 30.0, 20.0):
        statistics.outcomes[Outcome.DONE] += 1
        counts, timings = TokenCounts(9, 4, 5), Timings(queue=1.0, total=total)
        statistics.add(Answer("", "", (), FinishReason.STOP, counts, timings, Speculation(3, 2, 1)))
    statistics.outcomes[Outcome.BUSY] += 2
    assert statistics.timings["total"].percentile(50) == 20.0
    figures = (statistics.generated_tokens, statistics.drafted_tokens, statistics.accepted_tokens)
    assert figures == (15, 9, 6)
    assert statistics.summary() == "3 done, 2 refused, queue full; median 20 ms, 95 % within 29 ms"
    assert JobStatistics().summary() == "none"


def test_the_last_failure_is_kept_with_its_fix() -> None:
    statistics = JobStatistics()
    statistics.end(Outcome.DONE)
    statistics.end(Outcome.BUSY, BusyError("later"))
    assert statistics.last_failure == ""
    statistics.end(Outcome.FAILED, EngineError("no graph; run export_onnx"))
    assert statistics.last_failure == "no graph; run export_onnx"
    statistics.end(Outcome.FAILED, KeyError("x"))
    assert statistics.last_failure == "internal error: KeyError('x')"
    assert statistics.outcomes == {Outcome.DONE: 1, Outcome.BUSY: 1, Outcome.FAILED: 2}


def test_how_fast_a_count_grows() -> None:
    rate = Rate(3)
    rate.look(10.0, 100)
    assert math.isnan(rate.per_second)
    for seconds, count in ((11.0, 200), (12.0, 220), (13.0, 240)):
        rate.look(seconds, count)
    assert rate.per_second == 20.0, "over the last three looks"
    rate.look(14.0, 5)
    rate.look(16.0, 9)
    assert rate.per_second == 2.0, "a count that was begun anew"
