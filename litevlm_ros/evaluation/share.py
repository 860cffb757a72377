"""A share with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
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
