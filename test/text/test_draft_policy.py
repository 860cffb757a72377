from __future__ import annotations

import pytest

from litevlm_ros.text.draft_policy import PROBE_AFTER, DraftPolicy, RunningRate
from litevlm_ros.text.drafts import Offer

LONG = Offer(15, kind=4)


def policy(step: float, costs: dict[int, float], acceptance: float, kind: int = 4) -> DraftPolicy:
    """One that has seen plain steps and verifications of each size take so long, and drafts be right so often."""
    policy = DraftPolicy(15)
    for _ in range(20):
        policy.stepped(step)
    for turn in range(100):
        for size, seconds in costs.items():
            drafted = Offer(size - 1, kind)
            # The first wrong token is behind acceptance / (1 - acceptance) right ones on average.
            accepted = size - 1 if acceptance == 1 else int(turn * 37 % 100 < 100 * acceptance)
            policy.verified(drafted, accepted, False, 0.0, seconds)
    return policy


FLAT = {2: 1.1, 4: 1.1, 8: 1.2, 16: 1.3}
"""Milliseconds on a GPU, where one more token costs little."""
STEEP = {2: 1.9, 4: 3.5, 8: 7.0, 16: 14.0}
"""Milliseconds on a CPU, where each token costs nearly as much as a step."""


def test_sizes_end_with_the_most_tokens() -> None:
    assert DraftPolicy(15).sizes == (2, 4, 8, 16)
    assert DraftPolicy(14).sizes == (2, 4, 8)
    assert DraftPolicy(1).sizes == (2,)


def test_nothing_is_verified_before_a_step_was_measured_or_without_a_draft() -> None:
    policy = DraftPolicy(15)
    assert policy.length(LONG, False) == 0
    for _ in range(2):
        policy.stepped(1.0)
    assert policy.length(Offer(), False) == 0
    assert policy.length(LONG, False) == 15, "untried sizes are tried, the most promising first"


def test_long_drafts_where_they_are_right_and_cheap() -> None:
    assert policy(1.0, FLAT, 1.0).length(LONG, False) == 15
    assert policy(1.0, FLAT, 1.0).length(Offer(2, 4), False) == 2


def test_short_ones_where_they_are_often_wrong() -> None:
    assert 1 <= policy(1.0, {2: 1.1, 4: 1.8, 8: 3.0, 16: 6.0}, 0.6).length(LONG, False) <= 3


@pytest.mark.parametrize(("costs", "acceptance"), [(STEEP, 0.9), (FLAT, 0.02)])
def test_none_where_it_does_not_pay(costs: dict[int, float], acceptance: float) -> None:
    off = policy(1.0, costs, acceptance)
    assert off.length(LONG, False) == 0
    assert not off.pays


def test_kinds_are_judged_on_their_own() -> None:
    mixed = policy(1.0, FLAT, 0.02, kind=1)
    assert mixed.length(Offer(3, kind=1), False) == 0
    assert mixed.length(Offer(3, kind=4), False) == 3
    assert mixed.pays


def test_drafting_has_its_cost_for_each_kind_and_token() -> None:
    both = policy(1.0, FLAT, 1.0)
    for _ in range(20):
        both.verified(Offer(3, 0), 3, False, 0.9, FLAT[4])
    # A draft of 15 gives 16 tokens for 1.3 + 15 * 0.3 steps, one of 3 only 4 for 1.1 + 0.9.
    assert both.length(Offer(15, 0), False) == 15
    for _ in range(100):
        both.verified(Offer(3, 0), 3, False, 3.0, FLAT[4])
    assert both.length(Offer(15, 0), False) == 0
    assert both.length(LONG, False) == 15, "others cost nothing"


def test_interrupting_plain_steps_has_its_own_cost() -> None:
    dear = policy(1.0, FLAT, 1.0)
    for size in FLAT:
        for _ in range(3):
            dear.verified(Offer(size - 1, 4), size - 1, True, 0.0, 20.0)
    assert dear.length(LONG, True) == 0
    assert dear.length(LONG, False) == 15


def test_refused_drafts_are_probed_now_and_then_so_that_a_change_is_noticed() -> None:
    off = policy(1.0, STEEP, 0.9)
    decisions = [off.length(LONG, False) for _ in range(3 * PROBE_AFTER)]
    assert sum(length > 0 for length in decisions) == 3
    for _ in range(60):  # the machine is less busy now
        for size in STEEP:
            off.verified(Offer(size - 1, 4), size - 1, False, 0.0, 1.0)
    assert off.length(LONG, False) > 0


def test_a_plain_step_is_taken_now_and_then() -> None:
    on = policy(1.0, FLAT, 1.0)
    assert [on.length(LONG, False) for _ in range(PROBE_AFTER)].count(0) == 1


def test_one_hiccup_changes_nothing() -> None:
    on = policy(1.0, FLAT, 1.0)
    on.verified(LONG, 15, False, 0.0, 1000.0)
    assert on.length(LONG, False) == 15
    on.stepped(1000.0)
    assert on.length(LONG, False) == 15


def test_the_first_time_of_a_size_may_hold_compilation_and_is_left_out() -> None:
    fresh = DraftPolicy(1)
    for _ in range(5):
        fresh.stepped(1.0)
    fresh.verified(Offer(1, 4), 1, False, 0.0, 3000.0)
    assert fresh.length(Offer(1, 4), False) == 1


def test_running_rate() -> None:
    rate = RunningRate()
    assert rate.rate == 0
    rate.add(3, 4)
    assert rate.rate == 0.75
    for _ in range(100):
        rate.add(0, 4)
    assert rate.rate < 0.01


def test_drafting_nothing_counts_as_a_wrong_draft_and_its_time() -> None:
    tried = policy(1.0, FLAT, 1.0)
    assert tried.pays
    for _ in range(200):
        tried.drafted_nothing(LONG.kind, 0.5)
    assert not tried.pays
    assert tried.length(LONG, False) == 0
