from __future__ import annotations

import numpy as np
import pytest

from litevlm_ros.runtime.tensorrt.attention_reference import (
    Lengths,
    SampleNumbers,
    attend,
    edges,
    lengths_to_check,
    relative_error,
)
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words


@pytest.mark.parametrize(("computed", "bits"), [("fp16", 11), ("bf16", 8)])
def test_words_are_the_nearest_numbers(computed: str, bits: int) -> None:
    numbers = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    rounded = from_words(to_words(numbers, computed), computed)
    assert (np.abs(rounded - numbers) <= np.abs(numbers) * 2.0**-bits).all()
    assert np.array_equal(from_words(to_words(rounded, computed), computed), rounded)


def test_ties_go_to_the_even_bf16_number() -> None:
    between = np.array([1 + 2**-8, 1 + 3 * 2**-8], np.float32)
    assert from_words(to_words(between, "bf16"), "bf16").tolist() == [1, 1 + 2**-6]


def test_a_part_of_an_array_is_what_its_place_says() -> None:
    numbers = SampleNumbers("fp16")
    whole = np.resize(np.roll(numbers.period, -256), (120_000, 3)).view(np.float16).astype(np.float64)
    rows, columns = [0, 7, 33_400, 119_999], [0, 2]
    np.testing.assert_array_equal(numbers.matrix(256, rows, columns, 3), whole[rows][:, columns])


@pytest.mark.parametrize(("rows", "capacity"), [(1, 64), (2, 64), (16, 64), (64, 64), (100, 64)])
def test_lengths_fit_the_rows_and_the_cache(rows: int, capacity: int) -> None:
    cases = lengths_to_check(rows, capacity)
    assert all(1 <= case.new <= min(rows, case.valid) and case.valid <= capacity for case in cases)
    assert {Lengths(1, 1), Lengths(min(rows, capacity), capacity)} <= set(cases)
    assert len(set(cases)) == len(cases)


def test_the_last_new_token_sees_all_valid_rows() -> None:
    assert [Lengths(3, 10).keys_of(row) for row in range(3)] == [8, 9, 10]


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (1025, [0, 1, 512, 1023, 1024])]
)
def test_edges_exist(count: int, expected: list[int]) -> None:
    assert edges(count, count - 2) == expected


def test_attention_to_one_key_is_its_value() -> None:
    value = np.array([[3.0, 4.0]])
    np.testing.assert_array_equal(attend(np.ones((2, 2)), np.ones((1, 2)), value), [[3, 4], [3, 4]])


def test_the_error_is_that_of_the_worst_row() -> None:
    expected = np.array([[3.0, 4.0], [30.0, 40.0]])
    assert relative_error(expected + np.array([[0.0, 0.5], [0.0, 0.0]]), expected) == pytest.approx(0.1)
    assert relative_error(np.array([[3.0, np.nan], [30, 40]]), expected) == np.inf
