"""The kernels between the products of a text block, on the host, against numpy in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from kernel_calls import call

from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.kernels.rows import RowKernels
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words

RANDOM = np.random.default_rng(9)
ROUNDING = {"fp16": 2.0**-11, "bf16": 2.0**-8}
"""The largest relative error of one rounding. fp32's own errors come on top."""
SMALLEST = 2.0**-25
"""Half of fp16's smallest number, below which its roundings are not relative."""
TYPES = ("fp16", "bf16")


class Rows:
    """Calls the kernels."""

    def run(self, name: str, config: TextConfig, computed: str, *arguments: Any) -> None:
        call(lambda device: RowKernels(device, config, computed), name, *arguments)


@pytest.fixture
def kernels(cuda: FakeCuda) -> Rows:
    return Rows()


def shapes(width: int = 64, inner: int = 64) -> TextConfig:
    return TextConfig(width, inner, 2, 4, 2, 16, 1e-3, 1e6, 100, True, 1024)


def assert_rounded_once(words: Any, expected: Any, computed: str) -> None:
    np.testing.assert_allclose(from_words(words, computed), expected, rtol=1.01 * ROUNDING[computed], atol=SMALLEST)


def floats(rows: int, width: int) -> Any:
    return RANDOM.standard_normal((rows, width)).astype(np.float32)


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (3, 136), (7, 256), (5, 896), (2, 8 * 1024 + 40)])
@pytest.mark.parametrize("in_place", [False, True])
def test_rows_are_added_and_normalised(kernels: Rows, rows: int, width: int, computed: str, in_place: bool) -> None:
    """A row is as wide as a part of a warp, some warps, or more than a block's threads take in two steps."""
    config = shapes(width)
    total, change, weight = 3 * floats(rows, width), floats(rows, width), floats(1, width)
    total[-1] *= 1e4
    wide = total.astype(np.float64) + change
    added = total if in_place else np.full_like(total, np.nan)
    normalised = np.zeros((rows + 1, width), np.uint16)
    kernels.run("add_and_normalise", config, computed, total, change, weight, added, normalised, rows)
    np.testing.assert_array_equal(added, wide.astype(np.float32))
    expected = wide / np.sqrt(np.square(wide).mean(1, keepdims=True) + config.rms_norm_eps) * weight
    assert_rounded_once(normalised[:rows], expected, computed)
    assert not normalised[rows].any(), "nothing is written behind the rows"


@pytest.mark.parametrize("computed", TYPES)
def test_a_row_of_zeros_stays_zero(kernels: Rows, computed: str) -> None:
    zeros, weight, normalised = np.zeros((1, 64), np.float32), np.ones(64, np.float32), np.ones((1, 64), np.uint16)
    kernels.run("add_and_normalise", shapes(), computed, zeros, zeros, weight, zeros, normalised, 1)
    assert not normalised.any()


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sum_that_is_not_finite_shows_in_its_row_alone(kernels: Rows, computed: str, value: float) -> None:
    total, change, weight = floats(3, 64), floats(3, 64), floats(1, 64)
    change[1, 37] = value
    normalised = np.zeros((3, 64), np.uint16)
    kernels.run("add_and_normalise", shapes(), computed, total, change, weight, total, normalised, 3)
    finite = np.isfinite(from_words(normalised, computed))
    assert not finite[1, 37]
    assert finite[[0, 2]].all()
    assert not np.isfinite(total[1, 37])


def gated(kernels: Rows, gate: Any, up: Any, computed: str) -> Any:
    """The kernel's `active` [rows, I] for numbers that the type holds exactly, as words."""
    both = np.concatenate((to_words(gate, computed), to_words(up, computed)), 1)
    active = np.zeros((len(both) + 1, gate.shape[1]), np.uint16)
    kernels.run("silu_gate", shapes(inner=gate.shape[1]), computed, both, active, len(both))
    assert not active[-1].any(), "nothing is written behind the rows"
    return active[:-1]


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize(("rows", "inner"), [(1, 8), (5, 64), (37, 704)])
def test_gates_are_silu_times_up_rounded_once(kernels: Rows, rows: int, inner: int, computed: str) -> None:
    gate, up = (from_words(to_words(8 * floats(rows, inner), computed), computed) for _ in range(2))
    active = gated(kernels, gate, up, computed)
    assert_rounded_once(active, gate / (1 + np.exp(-gate.astype(np.float64))) * up, computed)


@pytest.mark.parametrize("computed", TYPES)
def test_gates_far_from_zero_close_or_let_everything_pass(kernels: Rows, computed: str) -> None:
    gate = np.array([[-60000, -1000, -100, 0, 20, 100, 1000, 30000]], np.float32)
    gate = from_words(to_words(gate, computed), computed)
    active = from_words(gated(kernels, gate, np.full_like(gate, 2), computed), computed)
    np.testing.assert_allclose(active[0, :4], 0, atol=1e-30)
    np.testing.assert_array_equal(active[0, 4:], 2 * gate[0, 4:])


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize("part", ["gate", "up"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gate_or_up_that_is_not_finite_passes_through(kernels: Rows, computed: str, part: str, value: float) -> None:
    gate, up = np.ones((3, 64), np.float32), np.ones((3, 64), np.float32)
    (gate if part == "gate" else up)[1, 9] = value
    finite = np.isfinite(from_words(gated(kernels, gate, up, computed), computed))
    assert not finite[1, 9]
    finite[1, 9] = True
    assert finite.all()


@pytest.mark.parametrize("computed", TYPES)
@pytest.mark.parametrize(("rows", "size"), [(1, 16), (3, 64), (2, 128), (2, 264)])
def test_heads_of_queries_and_keys_are_normalised(kernels: Rows, rows: int, size: int, computed: str) -> None:
    """A head is as wide as a part of a warp's words, all of them, or more. Values stay as they are."""
    config = replace(shapes(), num_heads=6, num_kv_heads=2, head_dim=size, qkv_bias=False, qk_norm=True)
    words = to_words(3 * floats(rows, 10 * size), computed).reshape(rows, 10, size)
    queries, keys = RANDOM.uniform(0.5, 1.5, (2, size)).astype(np.float32)
    wide = from_words(words, computed).astype(np.float64)
    expected = wide / np.sqrt(np.square(wide).mean(-1, keepdims=True) + config.rms_norm_eps)
    found = words.copy()
    kernels.run("normalise_heads", config, computed, found, queries, keys, rows)
    assert_rounded_once(found[:, :6], expected[:, :6] * queries, computed)
    assert_rounded_once(found[:, 6:8], expected[:, 6:8] * keys, computed)
    np.testing.assert_array_equal(found[:, 8:], words[:, 8:])
