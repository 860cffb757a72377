from __future__ import annotations

import numpy as np
import pytest

from litevlm_ros.runtime.onnx.finite_check import all_finite, first_bad_layer

LAYERS, TOKENS = 4, 5


def rows() -> np.ndarray:
    return np.ones((LAYERS, 2, TOKENS, 2, 8), np.float16)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_one_number_that_is_not_finite_is_found(bad: float, dtype: type) -> None:
    numbers = np.full((3, 7), np.finfo(dtype).max, dtype)
    assert all_finite(numbers, np.zeros(0, dtype))
    numbers[1, 4] = bad
    assert not all_finite(np.zeros(2), numbers)


def test_sound_rows_tell_of_no_layer() -> None:
    assert first_bad_layer(rows()) is None


@pytest.mark.parametrize("layer", range(1, LAYERS))
def test_a_token_that_is_nothing_but_nan_tells_of_the_layer_before(layer: int) -> None:
    new = rows()
    new[layer, :, 2] = np.nan
    new[layer + 1 :] = np.nan  # attention spreads it over all tokens
    assert first_bad_layer(new) == layer - 1


@pytest.mark.parametrize("layer", range(LAYERS))
def test_some_keys_or_values_that_overflow_tell_of_their_own_layer(layer: int) -> None:
    new = rows()
    new[layer, 1, 3, 0, 2] = np.inf
    new[layer + 1 :] = np.nan
    assert first_bad_layer(new) == layer


def test_bad_words_tell_of_the_first_layer() -> None:
    assert first_bad_layer(np.full_like(rows(), np.nan)) == 0
