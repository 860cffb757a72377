from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litevlm_ros.vision.token_selection import COSINE_ONE, choose, directions, hashes, highest, tokens_kept


def tiles(seed: int = 0, count: int = 3, tokens: int = 16, width: int = 24) -> Any:
    return np.random.default_rng(seed).standard_normal((count, tokens, width)).astype(np.float32)


def cosines(tile: Any) -> Any:
    unit = tile / np.linalg.norm(tile, axis=-1, keepdims=True)
    return unit @ unit.T


@pytest.mark.parametrize("method", ["random", "diversity", "similarity"])
@pytest.mark.parametrize("keep", [1, 7, 16])
def test_every_tile_keeps_as_many_in_order_whatever_is_beside_it(method: str, keep: int) -> None:
    rows = tiles()
    kept = choose(rows, method, keep)
    assert kept.shape == (3, keep)
    assert (np.diff(kept, axis=1) > 0).all()
    assert 0 <= kept.min() <= kept.max() < 16
    for order in ([0], [2, 1], [1, 0, 2]):
        np.testing.assert_array_equal(choose(rows[order], method, keep), kept[order])


def test_diversity_is_farthest_point_sampling() -> None:
    for tile in tiles(1):
        distance = 1 - cosines(tile)
        taken = [int(distance.mean(1).argmax())]
        while len(taken) < 9:
            nearest = distance[taken].min(0)
            nearest[taken] = -1
            taken.append(int(nearest.argmax()))
        assert choose(tile[None], "diversity", 9)[0].tolist() == sorted(taken)


def test_similarity_prefers_what_is_unlike_the_rest_of_the_tile() -> None:
    for tile in tiles(2):
        distance = 1 - cosines(tile)
        taken: list[int] = []
        while len(taken) < 9:
            value = distance.mean(1) + (distance[taken].min(0) if taken else 0)
            value[taken] = -1
            taken.append(int(value.argmax()))
        assert choose(tile[None], "similarity", 9)[0].tolist() == sorted(taken)


def test_one_of_each_kind_is_kept_before_a_second_of_any() -> None:
    kinds = np.eye(5, 24, dtype=np.float32)[[0, 0, 0, 1, 0, 2, 0, 0, 3, 0, 4, 0, 0, 0, 0, 0]]
    rows = (kinds * np.arange(1, 17)[:, None])[None]
    assert set(choose(rows, "diversity", 5)[0]) >= {3, 5, 8, 10}


def test_random_differs_from_tile_to_tile_and_favours_no_place() -> None:
    rows = tiles(3, count=2000)
    counts = np.bincount(choose(rows, "random", 8).reshape(-1), minlength=16)
    assert len({tuple(kept) for kept in choose(rows, "random", 8)}) > 1500
    assert (abs(counts - 1000) < 120).all()
    assert (hashes(rows) >= 0).all()


def test_half_precision_counts_as_the_numbers_it_holds() -> None:
    half = tiles(4).astype(np.float16)
    for method in ("random", "diversity", "similarity"):
        np.testing.assert_array_equal(choose(half, method, 6), choose(half.astype(np.float32), method, 6))


def test_directions_are_exact_where_sums_are_reordered() -> None:
    unit = directions(tiles(5, width=896))
    np.testing.assert_array_equal(unit, np.rint(unit))
    lengths = np.square(unit).sum(-1) / COSINE_ONE
    np.testing.assert_allclose(lengths, 1, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 3e38])
def test_tokens_without_a_direction_do_no_harm(value: float) -> None:
    rows = tiles(6)
    rows[0, 3], rows[1] = value, value
    for method in ("random", "diversity", "similarity"):
        kept = choose(rows, method, 8)
        assert (np.diff(kept, axis=1) > 0).all()
        np.testing.assert_array_equal(kept[2], choose(rows[2:], method, 8)[0])


def test_highest_takes_the_first_of_equals() -> None:
    assert highest(np.array([[1.0, 3.0, 3.0, 2.0, 3.0]]), 2).tolist() == [[1, 2]]


def test_a_share_is_at_least_one_token() -> None:
    assert [tokens_kept(share, 256) for share in (0.001, 0.25, 0.5, 1.0)] == [1, 64, 128, 256]
