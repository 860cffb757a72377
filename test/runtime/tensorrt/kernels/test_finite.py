"""The check of results, on the host."""

from __future__ import annotations

import numpy as np
import pytest
from host_kernels import run_kernel, with_macros

from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, read_source


@pytest.mark.parametrize(
    ("computed", "infinite"), [("fp16", 0x7C00), ("fp16", 0xFE00), ("bf16", 0x7F80), ("bf16", 0xFFC0)]
)
def test_one_number_of_many_is_noticed(computed: str, infinite: int) -> None:
    source = with_macros(read_source("finite.cu"), NUMBER_MACROS[computed])
    numbers, bad = np.full(100, 0x7B00 if computed == "fp16" else 0x7F00, np.uint16), np.zeros(1, np.int32)

    def check(count: int) -> int:
        arguments = [("P", numbers.ctypes.data), ("P", bad.ctypes.data), ("i", count)]
        run_kernel(source, "check_finite", (2,), (8,), arguments)
        return int(bad[0])

    assert not check(100)
    numbers[70] = infinite
    assert not check(70)
    assert check(100)
