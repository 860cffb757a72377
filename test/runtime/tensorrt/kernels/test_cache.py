"""The kernels of cache.cu, run on the host."""

from __future__ import annotations

import numpy as np
import pytest
from host_kernels import run_kernel

from litevlm_ros.runtime.tensorrt.kernels.launch import read_source

SOURCE = read_source("cache.cu")


@pytest.mark.parametrize(("count", "past", "blocks"), [(1, 0, 1), (1, 9, 2), (5, 3, 1), (7, 2, 3)])
def test_append_copies_the_new_rows_and_nothing_else(count: int, past: int, blocks: int) -> None:
    tensors, staged_rows, cache_rows, row_bytes = 6, 8, 12, 48
    staged = np.random.default_rng(0).integers(0, 256, (tensors, staged_rows, row_bytes)).astype(np.uint8)
    cache = np.full((tensors, cache_rows, row_bytes), 7, np.uint8)
    expected = cache.copy()
    expected[:, past : past + count] = staged[:, :count]
    numbers = np.array([past, count])
    addresses = (staged.ctypes.data, cache.ctypes.data, numbers.ctypes.data, numbers.ctypes.data + 8)
    arguments = [("P", address) for address in addresses]
    arguments += [("i", number) for number in (row_bytes // 16, staged_rows, cache_rows)]
    run_kernel(SOURCE, "append_rows", (tensors, blocks), (8,), arguments)
    np.testing.assert_array_equal(cache, expected)


def test_advance_moves_the_token_and_counts() -> None:
    ring, token = np.zeros(8, np.int64), np.array([151643])
    state = np.array([5, 400, 340, 9])  # input id, position, past length, step
    slots = [("P", state.ctypes.data + 8 * slot) for slot in range(4)]
    run_kernel(
        SOURCE, "advance", (1,), (1,), [("P", token.ctypes.data), *slots, ("P", ring.ctypes.data), ("i", len(ring))]
    )
    assert state.tolist() == [151643, 401, 341, 10]
    assert ring.tolist() == [0, 151643, 0, 0, 0, 0, 0, 0]
