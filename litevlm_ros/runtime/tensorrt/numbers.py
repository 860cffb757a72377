"""The numbers of 16 bits in which weights and activations are held, fp16 or bf16, as words in host memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NUMBER_BYTES = 2
"""Bytes of a number."""
FLOAT_BYTES = 4
"""Bytes of an fp32 number, as the sums over the layers are."""

Words = npt.NDArray[np.uint16]


def from_words(words: Words, computed: str) -> npt.NDArray[np.float32]:
    """Returns in fp32 the fp16 or bf16 numbers whose bits are `words`. `computed` is 'fp16' or 'bf16'."""
    if computed == "fp16":
        return words.view(np.float16).astype(np.float32)
    return (words.astype(np.uint32) << 16).view(np.float32)


def to_words(numbers: npt.NDArray[np.floating[Any]], computed: str) -> Words:
    """Returns the bits of finite numbers, rounded to fp16 or bf16."""
    if computed == "fp16":
        return numbers.astype(np.float16).view(np.uint16)
    wide = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    return ((wide + 0x7FFF + (wide >> 16 & 1)) >> 16).astype(np.uint16)
