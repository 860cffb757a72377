"""Token selection: chooses, behind the projector, the visual tokens of each tile that the language model reads.

LiteVLM (arXiv 2506.07416) scores tokens with a small trained network. The other methods need no training and work with
any weights. Each tile keeps the same number of tokens, so no view starves and shapes are fixed.

All methods make the same greedy choice: take the token of the highest value, again and again. The value of a token is
its importance plus its distance to the nearest token already taken:

* `diversity`: importance is the mean distance to all others for the first token, and nothing from then on. This is
  farthest-point sampling (T. F. Gonzalez, 1985).
* `similarity`: that importance stays, as in maximal marginal relevance (Carbonell and Goldstein, 1998).
* `scorer`: importance is the score of a trained network, and distances do not count.
* `random`: importance is a hash of place and content. It is the control: a method that is no better is not worth its
  time.

Distances are 1 - cosine in fixed point, of directions rounded to integers. Such sums do not depend on their order, so
the host and a GPU choose exactly the same tokens of a tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

DIRECTION_ONE = 1 << 14
"""The number that stands for 1 in the fixed point of directions."""
COSINE_ONE = DIRECTION_ONE**2
"""The number that stands for 1 in the fixed point of cosines."""

RANDOM_SEED = 0x9E3779B9
"""Seed of `hashes`."""

Rows = npt.NDArray[Any]
"""float [N, T, H]: visual tokens tile by tile."""
Values = npt.NDArray[np.int64]
"""int64 [N, T]: one number for each token of each tile."""
Directions = npt.NDArray[np.float64]
"""float64 [N, T, H], all integers: sums of their products stay below 2^53, so they are exact in any order."""
Kept = npt.NDArray[np.int64]
"""int64 [N, K], ascending: places within each tile."""


def tokens_kept(share: float, tokens_per_tile: int) -> int:
    """Returns the number of tokens of each tile that a share stands for, at least one."""
    return max(1, round(share * tokens_per_tile))


def directions(rows: Rows) -> Directions:
    """Returns unit vectors times DIRECTION_ONE, rounded, and zeros for tokens that are zero or not finite."""
    wide = rows.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.sqrt(np.square(wide).sum(-1, keepdims=True))
        sound = np.isfinite(lengths) & (lengths > 0)
        unit: Directions = np.rint(np.where(sound, wide, 0.0) * (DIRECTION_ONE / np.where(sound, lengths, 1.0)))
    return unit


def mean_distances(unit: Directions) -> Values:
    """Returns the mean distance of each token to the tokens of its tile, rounded down."""
    tokens = unit.shape[1]
    cosines = np.einsum("nth,nh->nt", unit, unit.sum(1)).astype(np.int64)
    values: Values = (tokens * COSINE_ONE - cosines) // tokens
    return values


def hashes(rows: Rows) -> Values:
    """Returns 31 pseudo-random bits for each token, which depend on its place in the tile and its first number only."""
    bits = np.ascontiguousarray(rows[..., 0].astype(np.float32)).view(np.uint32)
    places = np.arange(rows.shape[1], dtype=np.uint32)
    mixed = bits ^ (places * np.uint32(RANDOM_SEED))
    # The finalizer of MurmurHash3 (Austin Appleby, public domain).
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    values: Values = (mixed >> np.uint32(1)).astype(np.int64)
    return values


def choose(rows: Rows, method: str, keep: int) -> Kept:
    """Returns the `keep` tokens of each tile that `method` takes: 'random', 'diversity' or 'similarity'."""
    if method == "random":
        return highest(hashes(rows), keep)
    unit = directions(rows)
    return farthest(unit, mean_distances(unit), keep, importance_stays=method == "similarity")


def highest(importance: npt.NDArray[Any], keep: int) -> Kept:
    """Returns the `keep` tokens of the highest importance, given as [N, T]. Of equal tokens it takes the first."""
    kept: Kept = np.sort(np.argsort(-importance, axis=1, kind="stable")[:, :keep], axis=1)
    return kept


def farthest(unit: Directions, importance: Values, keep: int, *, importance_stays: bool) -> Kept:
    """Takes the token of the highest value `keep` times, as the head of this file says. Of equal tokens the first."""
    tiles = np.arange(len(unit))
    nearest = np.full(importance.shape, np.inf)
    values = importance.astype(np.float64)
    kept = np.empty((len(unit), keep), np.int64)
    for place in range(keep):
        taken = values.argmax(1)
        kept[:, place] = taken
        # Not a matrix product: BLAS would start threads for it, which may cost more than the work.
        distances = COSINE_ONE - np.einsum("nth,nh->nt", unit, unit[tiles, taken])
        np.minimum(nearest, distances, out=nearest)
        nearest[tiles, taken] = -np.inf
        values = nearest + importance if importance_stays else nearest
    kept.sort(1)
    return kept
