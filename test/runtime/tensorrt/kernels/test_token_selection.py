"""The kernels of token_selection.cu, run on the host, choose what `vision/token_selection.py` chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from host_kernels import run_kernel, with_macros

from litevlm_ros.runtime.tensorrt.kernels.module import read_source
from litevlm_ros.runtime.tensorrt.kernels.selection import KINDS, METHODS, SELECTION_MACROS
from litevlm_ros.vision.token_selection import choose, directions

SOURCE = with_macros(read_source("token_selection.cu"), SELECTION_MACROS)
TILES, TOKENS, WIDTH = 2, 20, 40


def tiles(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((TILES, TOKENS, WIDTH)).astype(np.float32)


def pointers(*arrays: Any) -> list[tuple[str, int]]:
    return [("P", array.ctypes.data) for array in arrays]


def integers(*numbers: int) -> list[tuple[str, int]]:
    return [("i", number) for number in numbers]


def on_kernels(rows: Any, kind: str, method: str, keep: int) -> Any:
    """Directions, cosines and places."""
    unit = np.zeros(rows.shape, np.int16)
    cosines = np.zeros((TILES, TOKENS, TOKENS), np.int32)
    places = np.full((TILES, keep), -1, np.int32)
    run_kernel(SOURCE, "directions", (TILES * TOKENS,), (32,), pointers(rows, unit) + integers(WIDTH, KINDS[kind]))
    run_kernel(SOURCE, "cosines", (2, 2, TILES), (16, 16), pointers(unit, cosines) + integers(TOKENS, WIDTH // 2))
    numbers = integers(TOKENS, WIDTH, KINDS[kind], keep, METHODS[method])
    run_kernel(SOURCE, "choose", (TILES,), (32,), pointers(rows, cosines, places) + numbers)
    return unit, cosines, places - TOKENS * np.arange(TILES)[:, None]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("keep", [1, 9, 20])
def test_they_choose_as_the_host_does(method: str, keep: int) -> None:
    rows = tiles(keep)
    unit, cosines, places = on_kernels(rows, "fp32", method, keep)
    expected = directions(rows)
    np.testing.assert_array_equal(unit, expected)
    np.testing.assert_array_equal(cosines, expected @ expected.swapaxes(1, 2))
    np.testing.assert_array_equal(places, choose(rows, method, keep))


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_they_read_16_bit_numbers(kind: str) -> None:
    half = (tiles(3) * np.float32(1e-5)).astype(np.float16)  # many of them subnormal
    half[0, :3, 0] = np.inf, np.nan, -np.inf
    if kind == "bf16":
        bits = (tiles(4).view(np.uint32) >> 16).astype(np.uint16)
        half, wide = bits, (bits.astype(np.uint32) << 16).view(np.float32)
    else:
        wide = half.astype(np.float32)
    for method in METHODS:
        unit, _, places = on_kernels(half, kind, method, 7)
        np.testing.assert_array_equal(unit, directions(wide))
        np.testing.assert_array_equal(places, choose(wide, method, 7))


@pytest.mark.parametrize("value", [0.0, np.nan, 1.0])
def test_tokens_without_a_difference_are_taken_in_order(value: float) -> None:
    rows = np.full((TILES, TOKENS, WIDTH), value, np.float32)
    for method in ("diversity", "similarity"):
        _, _, places = on_kernels(rows, "fp32", method, 5)
        np.testing.assert_array_equal(places, choose(rows, method, 5))
        assert places.tolist() == [[0, 1, 2, 3, 4]] * TILES


def test_gather_copies_the_rows_in_their_places() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (12, 48)).astype(np.uint8)
    places = np.array([1, 4, 11], np.int32)
    result = np.zeros((3, 48), np.uint8)
    run_kernel(SOURCE, "gather", (3,), (128,), pointers(rows, places, result) + integers(3))
    np.testing.assert_array_equal(result, rows[places])
