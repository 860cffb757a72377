"""A backend that remembers what it has read, so that a wrong cache, position or visual token changes the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from litevlm_ros.backend import Backend, HiddenStates, Logits, Tiles, TokenIds, read_one_by_one
from litevlm_ros.errors import EngineError

Read = tuple[int, int, str]
"""Id, position and, for a visual token, its content."""


@dataclass(frozen=True)
class Sights:
    """One row per visual token: a digest of its tile."""

    rows: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.rows)

    def part(self, first: int, end: int) -> Sights:
        return Sights(self.rows[first:end])


class ScriptedVision:
    def __init__(self, tokens_per_tile: int) -> None:
        self._tokens_per_tile = tokens_per_tile
        self.runs = 0
        self.tiles = 0

    def encode(self, pixels: Tiles) -> Sights:
        self.runs += 1
        self.tiles += len(pixels)
        digests = [hashlib.sha256(tile.tobytes()).hexdigest() for tile in pixels]
        return Sights(tuple(f"{digest}/{row}" for digest in digests for row in range(self._tokens_per_tile)))

    def join(self, parts: Sequence[Sights]) -> Sights:
        return Sights(tuple(row for part in parts for row in part.rows))


class ListCache:
    def __init__(self, capacity: int) -> None:
        self.rows: list[Read] = []
        self.capacity = capacity

    @property
    def length(self) -> int:
        return len(self.rows)

    def truncate(self, length: int) -> None:
        if not 0 <= length <= len(self.rows):
            raise EngineError("cannot be cut")
        del self.rows[length:]


@dataclass(frozen=True)
class Output:
    next_tokens: TokenIds
    values: Logits

    def logits(self) -> Logits:
        return self.values

    def hidden(self) -> HiddenStates:
        return self.values


class ScriptedText:
    """`script` gives the reply's tokens; without one, the next token is a hash of everything in the cache."""

    def __init__(self, vocab_size: int, capacity: int, words: Sequence[int]) -> None:
        self.cache = ListCache(capacity)
        self.script: Sequence[int] | None = None
        self.before_run: Callable[[int], None] = lambda count: None
        self.counts: list[int] = []
        self._vocab_size = vocab_size
        self._words = words
        self._prompt_end = 0
        self.most_logits = 16
        self.gives_hidden = False
        self.prepared: tuple[int, ...] = ()

    def forward(
        self, input_ids: TokenIds, position_ids: TokenIds, visual_tokens: Sights | None = None, num_logits: int = 1
    ) -> Output:
        self.before_run(len(input_ids))
        if len(self.cache.rows) + len(input_ids) > self.cache.capacity:
            raise EngineError("full")
        new = []
        for token, position in zip(input_ids.tolist(), position_ids.tolist(), strict=True):
            content = ""
            if token >= self._vocab_size:
                assert visual_tokens is not None, "visual tokens are missing"
                content = visual_tokens.rows[token - self._vocab_size]
            new.append((token, position, content))
        self.cache.rows += new
        self.counts.append(len(new))
        end = len(self.cache.rows)
        if len(new) > 1 and num_logits == 1:
            self._prompt_end = end
        tokens = [self._after(self.cache.rows[:row]) for row in range(end - num_logits + 1, end + 1)]
        logits = np.random.default_rng(tokens[-1]).normal(size=(num_logits, self._vocab_size)).astype(np.float32)
        logits[np.arange(num_logits), tokens] = 6.0
        return Output(np.array(tokens), logits)

    def prepare(self, counts: Sequence[int]) -> None:
        self.prepared = tuple(counts)

    def decode_greedy(self, token: int, position: int, limit: int) -> Iterator[int]:
        return read_one_by_one(self, token, position, limit)

    def _after(self, rows: list[Read]) -> int:
        if self.script is not None:
            return self.script[min(len(rows) - self._prompt_end, len(self.script) - 1)]
        digest = hashlib.sha256(repr(rows).encode()).digest()
        return self._words[int.from_bytes(digest[:4], "little") % len(self._words)]


def make_backend(vocab_size: int, tokens_per_tile: int, capacity: int, words: Sequence[int]) -> Backend:
    vision = ScriptedVision(tokens_per_tile)
    return Backend("scripted", "scripted", vision, ScriptedText(vocab_size, capacity, words))
