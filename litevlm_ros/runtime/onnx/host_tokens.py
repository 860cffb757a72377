"""Visual tokens in host memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True)
class HostVisualTokens:
    """fp32 or fp16 [count, text width]."""

    rows: npt.NDArray[Any]

    @property
    def count(self) -> int:
        """Rows."""
        return len(self.rows)

    def part(self, first: int, end: int) -> HostVisualTokens:
        """See `VisualTokens.part`."""
        return HostVisualTokens(self.rows[first:end])
