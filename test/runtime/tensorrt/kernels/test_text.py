"""The kernels between the text decoder's blocks, on the host, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from host_kernels import run_kernel, with_macros

from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.kernels.module import read_source
from litevlm_ros.runtime.tensorrt.kernels.text import rotary_grid, text_macros
from litevlm_ros.runtime.tensorrt.numbers import from_words, to_words

RANDOM = np.random.default_rng(7)
NO_SCALES = None
"""The address of what a kernel does not need."""


def shapes(heads: int, kv_heads: int, head_dim: int, vocabulary: int = 64) -> TextConfig:
    """A model with these heads, whose logits 8 threads look through."""
    return TextConfig(heads * head_dim, 64, 2, heads, kv_heads, head_dim, 1e-6, 1e6, vocabulary, True, 1024)


def run(
    name: str,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    *arguments: Any,
    computed: str = "fp16",
    config: TextConfig | None = None,
) -> None:
    source = with_macros(read_source("text.cu"), text_macros(config or shapes(2, 1, 8), computed))
    typed = [
        ("P", each.ctypes.data) if isinstance(each, np.ndarray) else ("P", 0) if each is NO_SCALES else ("i", each)
        for each in arguments
    ]
    run_kernel(source, name, grid, block, typed)


@pytest.mark.parametrize("visual_is_bf16", [False, True])
def test_words_and_visual_tokens_become_rows(visual_is_bf16: bool) -> None:
    table, visual = RANDOM.standard_normal((10, 24)).astype(np.float16), RANDOM.standard_normal((4, 24))
    computed = "bf16" if visual_is_bf16 else "fp16"
    given = to_words(visual, computed)
    rows = from_words(given, computed)
    ids, residual = np.array([3, 10, 9, 13, 0]), np.full((5, 24), np.nan, np.float32)
    run("embed", (5,), (8,), ids, table, NO_SCALES, given, residual, 24, 10, int(visual_is_bf16))
    np.testing.assert_array_equal(residual, np.stack([table[3], rows[0], table[9], rows[3], table[0]]))


def test_words_in_int8_are_multiplied_by_their_scales_and_rounded_as_numbers() -> None:
    table = RANDOM.integers(-127, 128, (10, 24)).astype(np.int8)
    scales = RANDOM.uniform(0.001, 0.01, 10).astype(np.float16)
    visual = RANDOM.standard_normal((4, 24)).astype(np.float16)
    ids, residual = np.array([3, 10, 9]), np.full((3, 24), np.nan, np.float32)
    run("embed", (3,), (8,), ids, table, scales, visual, residual, 24, 10, 0)
    words = (table * scales.astype(np.float32)[:, None]).astype(np.float16)
    np.testing.assert_array_equal(residual, np.stack([words[3], visual[0], words[9]]))


def test_angles_are_those_of_the_positions() -> None:
    positions, frequencies = np.array([0, 7, 30000]), (1e6 ** -(np.arange(0, 16, 2) / 16)).astype(np.float32)
    table = np.zeros((3, 16), np.float32)
    run("rotations", (3,), (4,), positions, frequencies, table, 8)
    angles = positions[:, None].astype(np.float32) * frequencies
    np.testing.assert_allclose(table[:, :8], np.cos(angles.astype(np.float64)), atol=2e-6)
    np.testing.assert_allclose(table[:, 8:], np.sin(angles.astype(np.float64)), atol=2e-6)


def rotated(heads: Any, table: Any) -> Any:
    half = table.shape[1] // 2
    first, second = heads[..., :half].astype(np.float64), heads[..., half:].astype(np.float64)
    cos, sin = (part[:, None].astype(np.float64) for part in (table[:, :half], table[:, half:]))
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), -1)


@pytest.mark.parametrize("computed", ["fp16", "bf16"])
@pytest.mark.parametrize("head_dim", [6, 8, 12, 16, 64, 128])
def test_queries_are_rotated_and_keys_and_values_appended(computed: str, head_dim: int) -> None:
    """Five tokens of which three are real, behind 4 of 9 cache rows. A half holds words of 1, 2 or 8 numbers."""
    tokens, heads, kv_heads = 5, 6, 2
    config = shapes(heads, kv_heads, head_dim)
    qkv = to_words(RANDOM.standard_normal((tokens, heads + 2 * kv_heads, head_dim)), computed)
    words, before = qkv.copy(), from_words(qkv, computed)
    angles = RANDOM.uniform(0, 6, (tokens, head_dim // 2))
    table = np.concatenate((np.cos(angles), np.sin(angles)), 1).astype(np.float32)
    caches = [np.full((9, kv_heads, head_dim), 77, np.uint16) for _ in range(2)]
    bad = np.zeros(1, np.int32)
    lengths = np.array([3, 7], np.int32)
    run("rotate_and_append", *rotary_grid(config, tokens), qkv, *caches, table, lengths, bad, tokens,
        computed=computed, config=config)  # fmt: skip
    near = 1e-2 if computed == "bf16" else 1e-3
    np.testing.assert_allclose(
        from_words(qkv, computed)[:, :heads], rotated(before[:, :heads], table), rtol=near, atol=near
    )
    np.testing.assert_array_equal(qkv[:, heads:], words[:, heads:])
    keys = rotated(before[:, heads : heads + kv_heads], table)
    np.testing.assert_allclose(from_words(caches[0][4:7], computed), keys[:3], rtol=near, atol=near)
    np.testing.assert_array_equal(caches[1][4:7], words[:3, heads + kv_heads :])
    for cache in caches:
        assert (cache[:4] == 77).all()
        assert (cache[7:] == 77).all(), "tokens that fill up the shape reach no cache"
    assert not bad[0]


@pytest.mark.parametrize("head_dim", [6, 8, 16])
@pytest.mark.parametrize(("token", "head", "expected"), [(1, 2, 1), (1, 3, 1), (1, 1, 0), (4, 2, 0), (4, 3, 0)])
def test_a_key_or_value_that_is_not_finite_is_noticed_unless_it_only_fills_up(
    token: int, head: int, expected: int, head_dim: int
) -> None:
    """Heads 0 and 1 are queries, which come to nothing without their keys."""
    config = shapes(2, 1, head_dim)
    for place in (0, head_dim // 2 - 1, head_dim - 1):
        qkv = np.ones((5, 4, head_dim), np.float16)
        qkv[token, head, place] = np.inf
        table, bad = np.ones((5, head_dim), np.float32), np.zeros(1, np.int32)
        caches = [np.zeros((9, 1, head_dim), np.float16) for _ in range(2)]
        run("rotate_and_append", *rotary_grid(config, 5), qkv, *caches, table, np.array([3, 3], np.int32), bad, 5,
            config=config)  # fmt: skip
        assert bad[0] == expected


def test_wanted_rows_are_gathered() -> None:
    attention, residual = RANDOM.standard_normal((6, 16)).astype(np.float16), np.arange(72, dtype=np.float32)
    rows, sums = np.zeros((2, 16), np.float16), np.zeros((2, 12), np.float32)
    run("gather_rows", (2,), (8,), np.array([5, 2]), attention, residual, rows, sums, 16, 12)
    np.testing.assert_array_equal(rows, attention[[5, 2]])
    np.testing.assert_array_equal(sums, residual.reshape(6, 12)[[5, 2]])


@pytest.mark.parametrize("vocabulary", [64, 61])
def test_the_likeliest_token_is_the_first_of_the_largest(vocabulary: int) -> None:
    logits = np.round(2 * RANDOM.standard_normal((6, 64))).astype(np.float16)
    logits[:, vocabulary:] = 100  # padding that is larger than all
    logits[1] = -60000
    tokens, bad = np.full(6, -1), np.zeros(1, np.int32)
    run("choose", (6,), (8,), logits, tokens, bad, vocabulary, 64)
    np.testing.assert_array_equal(tokens, logits[:, :vocabulary].argmax(1))
    assert not bad[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_noticed(value: float) -> None:
    logits = np.zeros((2, 64), np.float16)
    logits[1, 33] = value
    tokens, bad = np.zeros(2, np.int64), np.zeros(1, np.int32)
    run("choose", (2,), (8,), logits, tokens, bad, 61, 64)
    assert bad[0]
    assert ((tokens >= 0) & (tokens < 61)).all(), "a row of the embedding in any case"
    bad[0] = 0
    run("choose", (2,), (8,), logits, tokens, bad, 33, 64)
    assert not bad[0], "padding may hold anything"


@pytest.mark.parametrize("bad", [(0, 0, 0), (1, 0, 0), (0, 0, 1)])
def test_a_step_makes_its_token_the_next_input(bad: tuple[int, ...]) -> None:
    """The flag behind `bad` is not looked at."""
    token, flags, identity, position = np.array([42]), np.array([*bad, 1], np.int32), np.array([1]), np.array([400])
    lengths, step, ring = np.array([1, 18], np.int32), np.array([5]), np.zeros(4, np.int64)
    run("advance", (1,), (1,), token, flags, identity, position, lengths, step, ring, 4, 3)
    assert (identity[0], position[0], step[0], lengths.tolist()) == (42, 401, 6, [1, 19])
    assert ring.tolist() == [0, -1 if any(bad) else 42, 0, 0]
