"""The conversions of numbers.cuh on the host, against numpy and against the nearest numbers by their distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from host_kernels import run_kernel, with_macros

from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, read_source

KERNELS = """
extern "C" __global__ void widen(const number *words, float *values, int *finite, int count)
{
    for (int i = 0; i < count; ++i) {
        values[i] = from_number(words[i]);
        finite[i] = is_finite(values[i]);
    }
}
extern "C" __global__ void narrow(const float *values, number *words, int count)
{
    for (int i = 0; i < count; ++i)
        words[i] = to_number(values[i]);
}
"""
WORDS = np.arange(1 << 16, dtype=np.uint16)
SIGN = 0x8000


def run(name: str, computed: str, *arrays: Any) -> None:
    source = with_macros(read_source("finite.cu") + KERNELS, NUMBER_MACROS[computed])
    run_kernel(source, name, (1,), (1,), [*(("P", each.ctypes.data) for each in arrays), ("i", len(arrays[0]))])


def narrowed(values: Any, computed: str) -> Any:
    values = np.ascontiguousarray(values, np.float32)
    words = np.zeros(len(values), np.uint16)
    run("narrow", computed, values, words)
    return words


def widened(computed: str) -> tuple[Any, Any]:
    values, finite = np.zeros(len(WORDS), np.float32), np.zeros(len(WORDS), np.int32)
    run("widen", computed, WORDS, values, finite)
    return values, finite


def exact(computed: str) -> Any:
    """All words as float32, by numpy for fp16, and by bf16's definition as the upper half of a float32."""
    if computed == "fp16":
        return WORDS.view(np.float16).astype(np.float32)
    return (WORDS.astype(np.uint32) << 16).view(np.float32)


def samples() -> Any:
    """Floats of all exponents, and around all that is special in fp16 and in bf16."""
    random = np.random.default_rng(3)
    bits = random.integers(0, 1 << 32, 200_000, np.uint64).astype(np.uint32)
    special = np.array([0x00000001, 0x007FFFFF, 0x00800000, 0x33000000, 0x33000001, 0x387FE000, 0x387FF000, 0x38800000,
                        0x477FE000, 0x477FEFFF, 0x477FF000, 0x477FFFFF, 0x7F7F7FFF, 0x7F7F8000, 0x7F7FFFFF, 0x7F800000],
                       np.uint32)  # fmt: skip
    return np.concatenate((bits, special, special | np.uint32(SIGN << 16))).view(np.float32)


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
def test_every_word_is_widened_exactly(computed: str) -> None:
    values, finite = widened(computed)
    np.testing.assert_array_equal(values, exact(computed))
    numbers = ~np.isnan(values)  # a GPU gives every NaN the same sign
    assert (np.signbit(values) == (WORDS >= SIGN))[numbers].all(), "minus zero, too"
    np.testing.assert_array_equal(finite, np.isfinite(exact(computed)))


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
def test_every_word_survives_the_way_to_float_and_back(computed: str) -> None:
    values = exact(computed)
    words = narrowed(values, computed)
    number = ~np.isnan(values)
    np.testing.assert_array_equal(words[number], WORDS[number])
    assert np.isnan(exact(computed)[words[~number]]).all(), "what is not a number does not become infinite"


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
def test_halves_between_words_go_to_the_even_one(computed: str) -> None:
    infinite = int(np.flatnonzero(np.isinf(exact(computed)))[0])
    values = exact(computed)[:infinite].astype(np.float64)
    # Beyond the largest number, the next one would be as far away again.
    above = np.append(values[1:], 2 * values[-1] - values[-2])
    middle = ((values + above) / 2).astype(np.float32)
    word = WORDS[:infinite].astype(int)
    for sign in (1, -1):
        flag = SIGN if sign < 0 else 0
        np.testing.assert_array_equal(narrowed(sign * middle, computed), (word + word % 2) | flag)
        np.testing.assert_array_equal(narrowed(sign * np.nextafter(middle, np.float32(0)), computed), word | flag)
        beyond = np.nextafter(middle, np.float32(np.inf))
        np.testing.assert_array_equal(narrowed(sign * beyond, computed), (word + 1) | flag)


def test_floats_are_rounded_to_fp16_as_by_numpy() -> None:
    values = samples()
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    words = narrowed(values, "fp16")
    number = ~np.isnan(values)
    np.testing.assert_array_equal(words[number], expected.view(np.uint16)[number])
    assert np.isnan(words.view(np.float16)[~number]).all()
    assert not number.all()


def test_floats_are_rounded_to_the_nearest_bf16() -> None:
    values = samples()
    words = narrowed(values, "bf16")
    with np.errstate(invalid="ignore"):
        every = exact("bf16").astype(np.float64)
    number = ~np.isnan(values)
    assert np.isnan(every[words[~number]]).all()
    values, words = values[number].astype(np.float64), words[number]
    lower = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)  # towards zero
    infinite = np.isinf(every[lower])
    np.testing.assert_array_equal(words[infinite], lower[infinite])
    values, words, lower = values[~infinite], words[~infinite], lower[~infinite]
    # The number that follows the largest one stands for infinity.
    upper = np.where(np.isinf(every[lower + 1]), np.copysign(2.0**128, values), every[lower + 1])
    down, up = np.abs(values - every[lower]), np.abs(upper - values)
    expected = np.where((up < down) | ((up == down) & (lower % 2 == 1)), lower + 1, lower)
    np.testing.assert_array_equal(words, expected)
