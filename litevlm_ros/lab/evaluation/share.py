"""A share with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_Z = 1.959964
"""Quantile of the normal distribution for 95 %."""


@dataclass(frozen=True)
class Share:
    """`hits` of `total` cases."""

    hits: int
    total: int

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Share:
        """How many of the outcomes are true."""
        listed = list(outcomes)
        return cls(sum(listed), len(listed))

    def __add__(self, other: Share) -> Share:
        return Share(self.hits + other.hits, self.total + other.total)

    @property
    def value(self) -> float | None:
        """From 0 to 1; None where there were no cases."""
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % score interval (E. B. Wilson, 1927), for cases that are independent of each other."""
        if not self.total:
            return 0.0, 1.0
        share, spread = self.hits / self.total, _Z**2 / self.total
        middle = (share + spread / 2) / (1 + spread)
        reach = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
        # With no hits or only hits, the outer bound is the share itself but for rounding.
        return (middle - reach if self.hits else 0.0), (middle + reach if self.hits < self.total else 1.0)


def paired_loss(reference: Sequence[bool], other: Sequence[bool]) -> tuple[float, float, float]:
    """Percentage points that `other` loses against `reference`, and the 95 % interval's ends.

    Both answered the same questions, so only those count that just one of them got right (McNemar's pairs).
    """
    pairs = list(zip(reference, other, strict=True))
    lost, won = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    total = max(1, len(pairs))
    points = 100 * (lost - won) / total
    reach = _Z * 100 * math.sqrt(max(0.0, lost + won - (lost - won) ** 2 / total)) / total
    return points, points - reach, points + reach
