"""One number of a weight on the fake GPU, made infinite for a while."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

FP16_INFINITY = 0x7C00


@contextlib.contextmanager
def set_number(weights: Any, name: str, layer: int = 0, at: int = 0, word: int = FP16_INFINITY) -> Iterator[None]:
    """Sets number `at` of the weight `name` of a layer of PartWeights to an fp16 number's bits."""
    run = [run for run in weights.runs if name in run.addresses][layer]
    number = ctypes.c_uint16.from_address(run.addresses[name] + 2 * at)
    before, number.value = number.value, word
    try:
        yield
    finally:
        number.value = before
