"""Biases and GELU, on the host, against numpy in float64."""

from __future__ import annotations

from math import erf, sqrt
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from kernel_calls import call

from litevlm_ros.runtime.tensorrt.kernels.bias import BiasKernels
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words

RANDOM = np.random.default_rng(9)
TYPES = ("fp16", "bf16")
SIZES = [(1, 8), (5, 64), (37, 320), (4, 1032)]
"""Rows that fill the groups of a thread or do not, of words of fewer threads than a block has or more."""


def run(name: str, computed: str, words: Any, bias: Any) -> Any:
    """Runs a kernel on all but the last of the rows `words`, and returns the numbers of those."""
    given = bias if computed == "fp16" else to_words(bias, "bf16")
    last = words[-1].copy()
    call(lambda device: BiasKernels(device, computed), name, words, given, len(words) - 1, words.shape[1])
    np.testing.assert_array_equal(words[-1], last, "nothing is written behind the rows")
    return from_words(words[:-1], computed)


def sample(rows: int, width: int, computed: str) -> tuple[Any, Any, Any]:
    """Words of one row more, a bias that the type holds exactly, and the sums of both in float64."""
    words = to_words(3 * RANDOM.standard_normal((rows + 1, width)), computed)
    bias = RANDOM.standard_normal((1, width)).astype(np.float32)
    if computed == "bf16":
        bias = from_words(to_words(bias, "bf16"), "bf16")
    return words, bias, from_words(words[:-1], computed).astype(np.float64) + bias


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_biases_are_added_and_the_sum_is_rounded_once(rows: int, width: int, computed: str, cuda: FakeCuda) -> None:
    words, bias, expected = sample(rows, width, computed)
    found = run("add", computed, words, bias)
    np.testing.assert_array_equal(found, from_words(to_words(expected.astype(np.float32), computed), computed))


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize(("rows", "width"), SIZES)
def test_gelu_is_as_near_as_a_rounding_at_one(rows: int, width: int, computed: str, cuda: FakeCuda) -> None:
    words, bias, wide = sample(rows, width, computed)
    exact = 0.5 * wide * (1 + np.vectorize(erf)(wide / sqrt(2)))
    rounding = {"fp16": 2.0**-11, "bf16": 2.0**-8}[computed]
    np.testing.assert_allclose(run("gelu", computed, words, bias), exact, rtol=1.1 * rounding, atol=2.9e-4)


@pytest.mark.parametrize("computed", TYPES)
def test_gelu_far_from_zero_closes_or_lets_everything_pass(computed: str, cuda: FakeCuda) -> None:
    numbers = np.zeros((2, 8), np.float32)
    numbers[0] = -60000, -1000, -10, -0.0, 10, 100, 1000, 60000
    numbers = from_words(to_words(numbers, computed), computed)
    found = run("gelu", computed, to_words(numbers, computed), np.zeros((1, 8), np.float32))
    np.testing.assert_allclose(found[0, :4], 0, atol=1e-6)
    np.testing.assert_array_equal(found[0, 4:], numbers[0, 4:])


@pytest.mark.parametrize("name", ["add", "gelu"])
@pytest.mark.parametrize("computed", TYPES)
def test_what_is_not_finite_shows_where_it_is(computed: str, name: str, cuda: FakeCuda) -> None:
    words = to_words(np.ones((4, 16), np.float32), computed)
    words[1, :2] = to_words(np.array([np.inf, np.nan]), computed)
    finite = np.isfinite(run(name, computed, words, np.zeros((1, 16), np.float32)))
    assert not finite[1, :2].any()
    finite[1, :2] = True
    assert finite.all()
