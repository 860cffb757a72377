from __future__ import annotations

import numpy as np
import pytest
from scripted_backend import ScriptedText

from litevlm_ros.lab.benchmarking.verification import Verification, time_verification, verification_table


@pytest.mark.parametrize(("tokens", "steps"), [(2, 1.3), (4, 1.9), (8, 3.5), (16, 7.0)])
def test_at_the_break_even_share_as_many_tokens_come_as_in_plain_steps(tokens: int, steps: float) -> None:
    share = Verification(tokens, 2 * steps, 2.0).break_even
    assert share is not None
    assert sum(share**place for place in range(tokens)) == pytest.approx(steps, rel=0.01)


def test_at_the_limits() -> None:
    assert Verification(4, 0.9, 1.0).break_even == 0
    assert Verification(4, 4.0, 1.0).break_even == 1
    assert Verification(4, 4.1, 1.0).break_even is None
    assert "never" in verification_table([Verification(4, 4.1, 1.0)])


def test_sizes_are_timed_behind_the_context() -> None:
    text = ScriptedText(50, 200, range(10, 50))
    lengths = []
    now = 0.0

    def work(count: int) -> None:
        nonlocal now
        lengths.append((text.cache.length, count))
        now += 0.002 * (1 + (count > 1))

    text.before_run = work
    text.most_logits = 8
    results = time_verification(text, 60, 50, runs=2, clock=lambda: now)
    assert [each.tokens for each in results] == [2, 4, 8]
    assert text.prepared == (2, 4, 8)
    assert all(np.isclose(each.steps, 2) for each in results)
    assert {length for length, count in lengths if count in (2, 4, 8)} == {60}
    assert np.isclose(results[0].step_ms, 2)
