"""The first part of a prompt, up to the newline behind the last image: its tokens, and where each of them stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
"""int64 [P]."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """Tokens in the order in which they are read. Ids from `vocab_size` on are visual tokens, numbered as they come.

    `positions` are rotary positions: tokens that are left out leave gaps. `end` is the position of what follows.
    """

    ids: Integers
    positions: Integers
    vocab_size: int
    end: int

    @classmethod
    def whole(cls, ids: Sequence[int], vocab_size: int) -> Prefix:
        """Of these ids, none left out."""
        return cls(np.array(ids, np.int64), np.arange(len(ids)), vocab_size, len(ids))

    @property
    def words(self) -> list[int]:
        """The ids that are text."""
        return [int(token) for token in self.ids[self.ids < self.vocab_size]]

    def keep(self, places: Integers) -> Prefix:
        """With those visual tokens alone whose numbers are in `places`, numbered anew; all stay where they stand."""
        number = self.ids - self.vocab_size
        stays = np.flatnonzero((number < 0) | np.isin(number, places))
        ids = self.ids[stays]
        ids[ids >= self.vocab_size] = self.vocab_size + np.arange(len(places))
        return Prefix(ids, self.positions[stays], self.vocab_size, self.end)

    def shared(self, other: Prefix, same: int) -> int:
        """How many tokens both begin with, if their first `same` visual tokens were made of the same pictures."""
        length = min(len(self.ids), len(other.ids))
        differs = self.ids[:length] != other.ids[:length]
        differs |= self.positions[:length] != other.positions[:length]
        differs |= other.ids[:length] >= self.vocab_size + same
        return int(differs.argmax()) if differs.any() else length
