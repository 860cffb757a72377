from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litevlm_ros.config import SamplingConfig
from litevlm_ros.text.sampling import Sampler, candidates

LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.25, 0.2], np.float32))


def allowed(**settings: Any) -> dict[int, float]:
    tokens, probabilities = candidates(LOGITS, SamplingConfig(**{"temperature": 1.0, **settings}))
    return dict(zip(tokens.tolist(), probabilities.round(4).tolist(), strict=True))


def test_all_tokens_with_their_probabilities() -> None:
    assert allowed() == {1: 0.4, 3: 0.25, 4: 0.2, 0: 0.1, 2: 0.05}


def test_temperature_sharpens_and_flattens() -> None:
    square = LOGITS * 2
    expected = np.exp(square) / np.exp(square).sum()
    assert allowed(temperature=0.5)[1] == pytest.approx(expected[1], abs=1e-4)
    assert next(iter(allowed(temperature=1e-6).values())) == 1
    assert allowed(temperature=1e6)[2] == pytest.approx(0.2, abs=1e-4)


def test_top_k_keeps_the_likeliest() -> None:
    assert allowed(top_k=2) == {1: 0.6154, 3: 0.3846}
    assert allowed(top_k=1) == {1: 1}
    assert len(allowed(top_k=99)) == 5


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, [1]), (0.39, [1]), (0.5, [1, 3]), (0.7, [1, 3, 4]), (0.99, [1, 3, 4, 0, 2])]
)
def test_top_p_keeps_the_least_that_reach_it(top_p: float, kept: list[int]) -> None:
    found = allowed(top_p=top_p)
    assert list(found) == kept
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)


def test_top_p_counts_within_top_k() -> None:
    assert list(allowed(top_k=2, top_p=0.6)) == [1]


def test_frequencies_follow_the_probabilities() -> None:
    sampler = Sampler(SamplingConfig(temperature=1, seed=1))
    counts = np.bincount([sampler.draw(LOGITS, []) for _ in range(20000)], minlength=5) / 20000
    np.testing.assert_allclose(counts, np.exp(LOGITS), atol=0.012)


def test_a_seed_repeats_and_none_does_not() -> None:
    def draws(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingConfig(temperature=1, seed=seed))
        return [sampler.draw(LOGITS, []) for _ in range(60)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


def test_repetition_penalty_applies_to_the_answer_only() -> None:
    logits = np.array([2.0, 1.5, -1.0], np.float32)
    sampler = Sampler(SamplingConfig(repetition_penalty=1.5))
    assert sampler.draw(logits, []) == 0
    assert sampler.draw(logits, [0]) == 1
    assert sampler.draw(logits, [0, 0, 1]) == 0
    negative = np.array([-1.0, -1.2], np.float32)
    assert sampler.draw(negative, [0]) == 1
    np.testing.assert_array_equal(negative, np.array([-1.0, -1.2], np.float32))


def test_extreme_logits_are_harmless() -> None:
    logits = np.array([1e30, -1e30, 0], np.float32)
    assert Sampler(SamplingConfig(temperature=0.01, top_p=0.5)).draw(logits, []) == 0


class Output:
    """A `DecoderOutput` of two rows, whose last one says that `token` is next."""

    def __init__(self, token: int) -> None:
        self._token = token

    def logits(self) -> Any:
        return np.stack([np.zeros(5, np.float32), 1 + 8 * np.eye(5, dtype=np.float32)[self._token]])


class Counting:
    """A `TextDecoder` that expects each token to be followed by the next number, and notes what it read."""

    def __init__(self) -> None:
        self.read: list[tuple[list[int], list[int]]] = []

    def forward(self, input_ids: Any, position_ids: Any) -> Output:
        self.read.append((input_ids.tolist(), position_ids.tolist()))
        return Output(int(input_ids[0]) + 1)


def test_each_token_is_read_when_the_next_is_asked_for() -> None:
    text = Counting()
    said: list[int] = []
    for token in Sampler(SamplingConfig()).decode(text, Output(1), 70, said):  # type: ignore[arg-type]
        assert len(text.read) == len(said)
        said.append(token)
        if token == 4:
            break
    assert said == [1, 2, 3, 4]
    assert text.read == [([1], [70]), ([2], [71]), ([3], [72])]


def test_the_answer_so_far_is_penalised() -> None:
    said: list[int] = []
    sampler = Sampler(SamplingConfig(repetition_penalty=1e6, temperature=1.0, top_k=1))
    text = Counting()
    tokens = sampler.decode(text, Output(1), 0, said)  # type: ignore[arg-type]
    assert next(tokens) == 1
    said.append(2)
    assert next(tokens) != 2
