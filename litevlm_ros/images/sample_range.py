"""Scales 16-bit samples to 8 bits by the number of bits that a camera really uses.

Cameras of 10, 12 or 14 bits put their values into 16-bit encodings unscaled, where the upper byte alone is nearly
black. Nothing in a message says so. The highest bit that is set tells it, rounded up to what cameras have.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

_DEPTHS = (8, 10, 12, 14, 16)
"""Numbers of bits that cameras have. 8-bit values are sometimes put into 16 bits as well."""
_log = logging.getLogger(__name__)


class SampleRange:
    """The number of bits that the 16-bit images of one source use.

    It never shrinks, so dark frames of a camera stay dark: brightness changes only when a frame has more bits than all
    before.
    """

    def __init__(self, source: str = "") -> None:
        """`source` is what the log calls it, such as "camera front"; without it, nothing is logged."""
        self._source = source
        self._bits = 0

    def scaled(self, samples: npt.NDArray[np.uint8], is_bigendian: bool) -> npt.NDArray[np.uint8]:
        """Returns 8-bit samples [rows, n] of the bytes of 16-bit ones [rows, 2 * n].

        Samples that use all 16 bits lose their lower byte.
        """
        upper, lower = (samples[:, place::2] for place in ((0, 1) if is_bigendian else (1, 0)))
        bits = self._grown(8 + int(upper.max()).bit_length())
        if bits == 16:
            return upper
        scaled = np.left_shift(upper, 16 - bits)
        scaled |= lower >> (bits - 8)
        return scaled

    def _grown(self, used: int) -> int:
        first = not self._bits
        self._bits = max(self._bits, next(bits for bits in _DEPTHS if bits >= used))
        if first and self._source and self._bits < 16:
            _log.info(
                "The 16-bit images of %s hold %d-bit values, so their brightness is scaled to these %d bits, and to "
                "more as soon as a frame has more",
                self._source, self._bits, self._bits,
            )  # fmt: skip
        return self._bits
