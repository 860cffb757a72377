"""The kernels between the products of a vision block, on the host, against numpy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from kernel_calls import call

from litevlm_ros.engines.vision_blocks import PROJECTOR_EPS
from litevlm_ros.model_config import VisionConfig
from litevlm_ros.runtime.tensorrt.kernels.vision_rows import VisionRowKernels
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words

RANDOM = np.random.default_rng(9)
ROUNDING = {"fp16": 2.0**-11, "bf16": 2.0**-8}
TYPES = ("fp16", "bf16")
WIDTHS = [8, 136, 256, 1024, 1160]
"""A row takes a part of a warp, some of its steps, all of them, or more than one warp."""


class Rows:
    """Calls the kernels."""

    def run(self, name: str, config: VisionConfig, computed: str, *arguments: Any) -> None:
        call(lambda device: VisionRowKernels(device, config, computed), name, *arguments)


@pytest.fixture
def kernels(cuda: FakeCuda) -> Rows:
    return Rows()


def shapes(width: int = 64) -> VisionConfig:
    """Tiles of 4 x 4 patches, 17 rows each, of which squares of 2 x 2 become a visual token."""
    return VisionConfig(width, 4 * width, 2, 4, 56, 14)


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape).astype(np.float32)


def numbers(computed: str, *shape: int) -> tuple[Any, Any]:
    """Words, and what they stand for in float64."""
    words = to_words(floats(*shape), computed)
    return words, from_words(words, computed).astype(np.float64)


def wide(computed: str, *shape: int) -> tuple[Any, Any]:
    """A bias or a scale as kernels read it, and in float64."""
    if computed == "bf16":
        return numbers("bf16", *shape)
    values = floats(*shape)
    return values, values.astype(np.float64)


def layer_norm(rows: Any, weight: Any, bias: Any, eps: float) -> Any:
    centred = rows - rows.mean(-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + eps) * weight + bias


def assert_rounded_once(words: Any, expected: Any, computed: str) -> None:
    # fp32's own errors are those of sums of numbers up to about 10.
    np.testing.assert_allclose(from_words(words, computed), expected, rtol=1.02 * ROUNDING[computed], atol=4e-6)


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_change_is_added_and_the_row_normalised(kernels: Rows, width: int, computed: str) -> None:
    config, rows = shapes(width), 5
    total, weight, bias = 3 * floats(rows, width), floats(width), floats(width)
    change, exact = numbers(computed, rows, width)
    residual, normalised = np.full((rows + 1, width), 7, np.float32), np.full((rows + 1, width), 7, np.uint16)
    kernels.run("add_and_normalise", config, computed, total, change, weight, bias, residual, normalised, rows)
    added = total.astype(np.float64) + exact
    np.testing.assert_array_equal(residual[:rows], added.astype(np.float32))
    assert_rounded_once(normalised[:rows], layer_norm(added, weight, bias, config.layer_norm_eps), computed)
    assert (residual[rows] == 7).all()
    assert (normalised[rows] == 7).all()


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_what_attention_mixes_is_scaled_added_and_normalised(kernels: Rows, width: int, computed: str) -> None:
    config, rows = shapes(width), 3
    residual, mixed, weight, bias = floats(rows, width), floats(rows, width), floats(width), floats(width)
    (more, exact_more), (scale, exact_scale) = wide(computed, width), wide(computed, width)
    total, normalised = np.full((rows, width), np.nan, np.float32), np.zeros((rows, width), np.uint16)
    arguments = residual, mixed, more, scale, weight, bias, total, normalised, rows
    kernels.run("add_scaled_and_normalise", config, computed, *arguments)
    expected = residual + (mixed + exact_more) * exact_scale
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=1e-6)
    assert_rounded_once(normalised, layer_norm(expected, weight, bias, config.layer_norm_eps), computed)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sum_that_is_not_finite_shows_in_its_row_alone(kernels: Rows, value: float) -> None:
    total, change, ones = floats(3, 64), np.zeros((3, 64), np.uint16), np.ones(64, np.float32)
    total[1, 37] = value
    residual, normalised = np.zeros((3, 64), np.float32), np.zeros((3, 64), np.uint16)
    kernels.run("add_and_normalise", shapes(), "fp16", total, change, ones, ones, residual, normalised, 3)
    finite = np.isfinite(from_words(normalised, "fp16"))
    assert not finite[1, 37]
    assert finite[[0, 2]].all()


def test_the_norm_of_numbers_far_from_zero_is_that_of_their_differences(kernels: Rows) -> None:
    """The mean is taken off before squares are summed up."""
    total, change = 1000 + floats(2, 64), np.zeros((2, 64), np.uint16)
    ones, zeros = np.ones(64, np.float32), np.zeros(64, np.float32)
    residual, normalised = np.zeros((2, 64), np.float32), np.zeros((2, 64), np.uint16)
    kernels.run("add_and_normalise", shapes(), "fp16", total, change, ones, zeros, residual, normalised, 2)
    expected = layer_norm(total.astype(np.float64), ones, zeros, shapes().layer_norm_eps)
    np.testing.assert_allclose(from_words(normalised, "fp16"), expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("width", [8, 64, 136])
def test_each_tile_has_the_same_positions(kernels: Rows, width: int) -> None:
    total, positions = floats(2 * 17, width), floats(17, width)
    expected = (total.reshape(2, 17, width) + positions).reshape(-1, width)
    kernels.run("add_positions", shapes(width), "fp16", total, positions, len(total))
    np.testing.assert_array_equal(total, expected)


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize("width", [8, 64, 320])
def test_squares_of_patches_become_rows_of_the_projector(kernels: Rows, width: int, computed: str) -> None:
    config, tiles = shapes(width), 2
    total, weight, bias = floats(tiles * 17, width), floats(4 * width), floats(4 * width)
    change, exact = numbers(computed, tiles * 17, width)
    normalised = np.zeros((tiles * 4, 4 * width), np.uint16)
    kernels.run("fold_and_normalise", config, computed, total, change, weight, bias, normalised, len(normalised))
    patches = (total + exact).reshape(tiles, 17, width)[:, 1:].reshape(tiles, 2, 2, 2, 2, width)
    rows = patches.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4 * width)
    assert_rounded_once(normalised, layer_norm(rows, weight, bias, PROJECTOR_EPS), computed)


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (5, 64), (4, 136), (7, 1032)])
def test_a_change_is_scaled_and_rounded_once(kernels: Rows, rows: int, width: int, computed: str) -> None:
    product = floats(rows, width)
    (bias, exact_bias), (scale, exact_scale) = wide(computed, width), wide(computed, width)
    change = np.full((rows + 1, width), 7, np.uint16)
    kernels.run("scale_change", shapes(width), computed, product, bias, scale, change, rows)
    assert_rounded_once(change[:rows], (product + exact_bias) * exact_scale, computed)
    assert (change[rows] == 7).all(), "nothing is written behind the rows"
