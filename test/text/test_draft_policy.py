from __future__ import annotations

import pytest

from litevlm_ros.text.draft_policy import FORGET_AFTER, LOSS, STEP_AFTER, DraftPolicy, RunningRate
from litevlm_ros.text.drafts import Offer

RIGHT, WRONG = 1, 2
LONG = Offer(15, kind=4, guess=RIGHT)
UNTOLD = Offer(15, kind=0)
"""A draft that must be made before anything is known of it, as the head's."""

FLAT = {2: 1.1, 4: 1.1, 8: 1.2, 16: 1.3}
"""Milliseconds on a GPU, where one more token costs little."""
STEEP = {2: 1.9, 4: 3.5, 8: 7.0, 16: 14.0}
"""Milliseconds on a CPU, where each token costs nearly as much as a step."""


def timed(costs: dict[int, float], interrupts: bool = False) -> DraftPolicy:
    """One that has seen plain steps take 1 ms, and verifications of each size so long, in another topic."""
    policy = DraftPolicy(15)
    policy.begin("back")
    steps(policy, 2)
    time_sizes(policy, costs, interrupts)
    policy.begin("front")
    return policy


def time_sizes(policy: DraftPolicy, costs: dict[int, float], interrupts: bool = False, count: int = 3) -> None:
    for size, milliseconds in costs.items():
        for _ in range(count):
            policy.verified(Offer(size - 1, 4, RIGHT), size - 1, interrupts, 0.0, milliseconds)


def steps(policy: DraftPolicy, count: int) -> None:
    for _ in range(count):
        policy.stepped(1.0)


def watch(policy: DraftPolicy, acceptance: float, offer: Offer = LONG) -> None:
    """Shows in 100 plain steps how often drafts are right."""
    for turn in range(100):
        policy.watched(offer, RIGHT if turn * 37 % 100 < 100 * acceptance else WRONG)


def ready(costs: dict[int, float], acceptance: float) -> DraftPolicy:
    """One that has seen drafts be right so often, and has taken so many plain steps that it may lose some."""
    policy = timed(costs)
    watch(policy, acceptance)
    steps(policy, 850)
    return policy


def test_sizes_end_with_the_most_tokens() -> None:
    assert DraftPolicy(15).sizes == (2, 4, 8, 16)
    assert DraftPolicy(14).sizes == (2, 4, 8)
    assert DraftPolicy(1).sizes == (2,)


def test_nothing_is_verified_before_drafts_were_seen_to_be_right() -> None:
    policy = timed(FLAT)
    steps(policy, 850)
    assert not policy.pays
    assert policy.may_pay
    assert policy.length(LONG, False) == 0
    watch(policy, 0.0)
    assert policy.length(LONG, False) == 0
    assert not policy.may_pay
    watch(policy, 1.0)
    assert policy.length(LONG, False) == 15
    assert policy.length(Offer(0, 4), False) == 0, "there is no draft"
    assert policy.pays


def test_nothing_is_verified_before_the_plain_steps_of_the_topic_pay_for_a_wrong_draft() -> None:
    policy = timed(FLAT)
    watch(policy, 1.0)
    taken = 0
    while not policy.pays:
        steps(policy, 1)
        taken += 1
    assert taken == pytest.approx(0.1 / LOSS, abs=1), "a verification of 2 tokens takes 0.1 ms longer than a step"
    assert policy.length(LONG, False) == 3
    steps(policy, round(0.2 / LOSS))
    assert policy.length(LONG, False) == 15, "one of 16 tokens takes 0.3 ms longer"


def test_a_verification_that_was_never_timed_needs_half_a_step() -> None:
    policy = DraftPolicy(15)
    policy.begin("front")
    watch(policy, 1.0)
    assert policy.length(LONG, False) == 0, "no step was timed"
    steps(policy, round(0.4 / LOSS))
    assert policy.length(LONG, False) == 0
    steps(policy, round(0.2 / LOSS))
    assert policy.length(LONG, False) == 15
    assert policy.length(LONG, True) == 0, "it would wait for steps that run ahead"
    steps(policy, round(2 / LOSS))
    assert policy.length(LONG, True) == 15


def test_each_topic_is_judged_on_its_own() -> None:
    policy = ready(FLAT, 1.0)
    policy.begin("left")
    assert not policy.pays
    steps(policy, 100)
    assert policy.length(LONG, False) == 0
    policy.begin("front")
    assert policy.length(LONG, False) == 15


def test_wrong_drafts_cost_no_more_than_a_share_of_the_plain_steps_and_what_was_saved() -> None:
    policy = ready(FLAT, 1.0)
    lost = taken = 0.0
    for _ in range(5000):
        if length := policy.length(LONG, False):
            policy.verified(Offer(length, 4, RIGHT), 0, False, 0.0, 1.3)
            watch(policy, 1.0)  # right whenever they are not used
            lost += 0.3
        else:
            policy.stepped(1.0)
            taken += 1
    assert lost <= 8.3 + LOSS * taken


def test_a_step_that_resumes_plain_decoding_is_a_cost_of_the_draft_before() -> None:
    policy = timed(FLAT)
    watch(policy, 1.0)
    steps(policy, round(0.3 / LOSS) + 5)
    assert policy.length(LONG, False) == 15
    policy.stepped(1.1, resumes=True)
    assert policy.length(LONG, False) == 7


def test_long_drafts_where_they_are_right_and_cheap() -> None:
    assert ready(FLAT, 1.0).length(LONG, False) == 15
    assert ready(FLAT, 1.0).length(Offer(2, 4, RIGHT), False) == 2


def test_short_ones_where_they_are_often_wrong() -> None:
    assert 1 <= ready({2: 1.1, 4: 1.8, 8: 3.0, 16: 6.0}, 0.6).length(LONG, False) <= 3


@pytest.mark.parametrize(("costs", "acceptance"), [(STEEP, 0.9), (FLAT, 0.02)])
def test_none_where_it_does_not_pay(costs: dict[int, float], acceptance: float) -> None:
    off = ready(costs, acceptance)
    assert off.length(LONG, False) == 0
    assert not off.pays


def test_kinds_are_judged_on_their_own() -> None:
    mixed = ready(FLAT, 1.0)
    watch(mixed, 0.02, Offer(15, 1, RIGHT))
    assert mixed.length(Offer(3, 1, RIGHT), False) == 0
    assert mixed.length(Offer(3, 4, RIGHT), False) == 3


def test_drafts_that_cannot_be_watched_are_tried_and_given_up() -> None:
    head = timed(FLAT)
    head.watched(UNTOLD, RIGHT)
    assert not head.pays
    steps(head, 100)
    assert head.pays
    wrong = 0
    while length := head.length(UNTOLD, False):
        head.verified(Offer(length, 0), 0, False, 0.0, FLAT[16])
        steps(head, 50)
        wrong += 1
    assert 1 < wrong < 100


def test_what_cannot_be_watched_is_tried_again_later() -> None:
    head = timed(FLAT)
    for _ in range(100):
        head.verified(UNTOLD, 0, False, 0.0, FLAT[16])
    steps(head, 850)
    assert not head.pays
    watch(head, 0.0, UNTOLD)
    assert head.pays


def test_drafts_that_were_wrong_for_long_are_not_punished_for_longer() -> None:
    policy = ready(FLAT, 1.0)
    for _ in range(100):
        policy.verified(LONG, 0, False, 0.0, FLAT[16])
    for _ in range(3):
        watch(policy, 1.0)
    assert not policy.pays
    steps(policy, round(1.4 / LOSS))
    assert policy.length(LONG, False) == 15


def test_drafting_has_its_cost_for_each_kind_and_token() -> None:
    both = ready(FLAT, 1.0)
    both.watched(UNTOLD, RIGHT)
    for _ in range(20):
        both.verified(Offer(3, 0), 3, False, 0.9, FLAT[4])
    # A draft of 15 gives 16 tokens for 1.3 + 15 * 0.3 steps, one of 3 only 4 for 1.1 + 0.9.
    assert both.length(UNTOLD, False) == 15
    for _ in range(100):
        both.verified(Offer(3, 0), 3, False, 3.0, FLAT[4])
    assert both.length(UNTOLD, False) == 0
    steps(both, 900)
    assert both.length(LONG, False) == 15, "others cost nothing"


def test_interrupting_plain_steps_has_its_own_cost() -> None:
    dear = ready(FLAT, 1.0)
    dear.begin("back")
    time_sizes(dear, dict.fromkeys(FLAT, 20.0), interrupts=True)
    dear.begin("front")
    steps(dear, 1)
    assert dear.length(LONG, True) == 0
    assert dear.length(LONG, False) == 15


def test_old_times_of_verifications_are_forgotten() -> None:
    off = ready(STEEP, 0.9)
    steps(off, FORGET_AFTER - 852)
    assert off.length(LONG, False) == 0
    steps(off, 2)
    assert off.length(LONG, False) == 15, "the machine may be less busy now"
    off.verified(LONG, 15, False, 0.0, 14.0)
    assert off.length(LONG, False) < 15, "one new time counts"


def test_a_plain_step_is_taken_now_and_then() -> None:
    on = ready(FLAT, 1.0)
    for _ in range(STEP_AFTER):
        assert on.length(LONG, False) == 15
        on.verified(LONG, 15, False, 0.0, 1.3)
    assert on.length(LONG, False) == 0
    on.stepped(1.0, resumes=True)
    assert on.length(LONG, False) == 0, "that was no usual step"
    on.stepped(1.0)
    assert on.length(LONG, False) == 15


def test_one_hiccup_changes_nothing() -> None:
    on = ready(FLAT, 1.0)
    on.verified(LONG, 15, False, 0.0, 1000.0)
    assert on.length(LONG, False) == 15
    on.stepped(1000.0)
    assert on.length(LONG, False) == 15


def test_the_first_time_of_a_size_may_hold_compilation_and_is_left_out() -> None:
    fresh = DraftPolicy(1)
    fresh.begin("front")
    watch(fresh, 1.0)
    steps(fresh, 150)
    fresh.verified(Offer(1, 4, RIGHT), 1, False, 0.0, 3000.0)
    assert fresh.length(Offer(1, 4, RIGHT), False) == 1


def test_running_rate() -> None:
    rate = RunningRate()
    assert rate.rate == 0
    rate.add(3, 4)
    assert rate.rate == 0.75
    for _ in range(100):
        rate.add(0, 4)
    assert rate.rate < 0.01


def test_drafting_nothing_counts_as_a_wrong_draft_and_its_time() -> None:
    tried = ready(FLAT, 1.0)
    tried.watched(UNTOLD, RIGHT)
    assert tried.length(UNTOLD, False)
    for _ in range(200):
        tried.drafted_nothing(UNTOLD, 0.5)
    steps(tried, 900)
    assert tried.length(UNTOLD, False) == 0
