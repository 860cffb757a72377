from __future__ import annotations

import pytest

from litevlm_ros.lab.evaluation.share import Share, paired_loss


@pytest.mark.parametrize(
    ("hits", "total", "interval"),
    [
        # Published example: Newcombe, Statistics in Medicine 17 (1998), table I, score method without correction.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (20, 20, (1 - 0.1611, 1.0)),
    ],
)
def test_interval(hits: int, total: int, interval: tuple[float, float]) -> None:
    share = Share(hits, total)
    assert share.interval == pytest.approx(interval, abs=5e-5)
    assert share.interval[0] <= share.value <= share.interval[1]


def test_of_outcomes_and_sums() -> None:
    assert Share.of(iter([True, False, True])) == Share(2, 3)
    assert Share(2, 3) + Share(1, 1) == Share(3, 4)
    assert Share(3, 4).value == 0.75


def test_without_cases_nothing_is_known() -> None:
    assert Share.of([]).value is None
    assert Share.of([]).interval == (0.0, 1.0)


def test_a_loss_counts_only_what_one_of_both_gets_right() -> None:
    reference, other = [True] * 7 + [False] * 3, [True] * 5 + [False] * 4 + [True]
    points, low, high = paired_loss(reference, other)
    assert points == pytest.approx(10)
    assert low < 0 < high
    assert paired_loss([True, False], [True, False]) == (0, 0, 0)
