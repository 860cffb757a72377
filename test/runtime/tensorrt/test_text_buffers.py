"""The host's writes for a program lie where kernels read them, and what is cleaned is clean."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from fake_cuda import FakeCuda

from litevlm_ros.config import MOST_LOGITS
from litevlm_ros.model_config import TextConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory
from litevlm_ros.runtime.tensorrt.text_buffers import TextBuffers, chunks

TEXT = TextConfig(48, 80, 3, 6, 2, 8, 1e-6, 1e6, 100, True, 4096)
ROW_BYTES = 2 * 2 * 8


class Bench:
    """Buffers on a fake device."""

    def __init__(self, cuda: FakeCuda, capacity: int) -> None:
        self.cuda = cuda
        self.device = CudaDevice()
        with self.device:
            self.memory = DeviceMemory(self.device)
            self.buffers = TextBuffers(TEXT, capacity, 20, 30, self.device, self.memory)

    def at(self, address: int, count: int, dtype: Any = np.int64) -> Any:
        """Numbers in device memory, when all work is done."""
        self.device.wait()
        size = count * np.dtype(dtype).itemsize
        self.cuda.check_range(address, size)
        return np.frombuffer(ctypes.string_at(address, size), dtype)

    def cache(self) -> Any:
        """All bytes of keys and values, [layers, 2, rows, bytes]."""
        rows = self.buffers.cache_rows
        addresses = [each(layer) for layer in range(3) for each in (self.buffers.keys, self.buffers.values)]
        parts = [self.at(address, rows * ROW_BYTES, np.uint8) for address in addresses]
        return np.stack(parts).reshape(3, 2, rows, ROW_BYTES)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    cuda = FakeCuda()
    fake_tensorrt.install(monkeypatch, cuda)
    bench = Bench(cuda, 100)
    with bench.device:
        yield bench
        bench.memory.free()
    assert cuda.live == {}
    fake_tensorrt.forget()


def test_a_prompt_lies_where_programs_read_it(bench: Bench) -> None:
    buffers = bench.buffers
    buffers.write_prompt(np.arange(20), np.arange(100, 120), 0, 1)
    buffers.write_prompt(np.array([7, 8, 9]), np.array([40, 41, 50]), 12, 2)
    assert not bench.at(buffers.prompt.ids, 20).any(), "nothing reaches the device before a program runs"
    buffers.upload_prompt()
    assert bench.at(buffers.prompt.ids, 4).tolist() == [7, 8, 9, 3], "what fills up are older tokens"
    assert bench.at(buffers.prompt.positions, 3).tolist() == [40, 41, 50]
    assert bench.at(buffers.prompt.lengths, 2, np.int32).tolist() == [3, 15]
    assert bench.at(buffers.prompt.wanted, MOST_LOGITS).tolist() == [1, 2, *(MOST_LOGITS - 2) * [0]]


def test_the_first_step_lies_where_programs_read_it(bench: Bench) -> None:
    buffers = bench.buffers
    buffers.write_state(42, 400, 12)
    state = buffers.state
    for address, expected in ((state.ids, 42), (state.positions, 400), (state.wanted, 0), (buffers.step, 0)):
        assert bench.at(address, 1)[0] == expected
    assert bench.at(state.lengths, 2, np.int32).tolist() == [1, 13]


@pytest.mark.parametrize(("capacity", "rows"), [(63, 64), (64, 128), (100, 128), (1, 64)])
def test_there_is_a_spare_row_behind_the_cache(bench: Bench, capacity: int, rows: int) -> None:
    other = Bench(bench.cuda, capacity)
    with other.device:
        assert other.buffers.cache_rows == rows
        other.buffers.write_idle()
        other.buffers.upload_prompt()
        for lengths in (other.buffers.prompt.lengths, other.buffers.state.lengths):
            assert other.at(lengths, 2, np.int32).tolist() == [1, rows], "one token, for the last row"
        other.memory.free()


def test_rows_are_cleared_in_all_layers_and_no_others(bench: Bench) -> None:
    assert not bench.cache().any(), "memory is zero from the start"
    addresses = [each(layer) for layer in range(3) for each in (bench.buffers.keys, bench.buffers.values)]
    for address in addresses:
        ctypes.memset(address, 0x7C, 128 * ROW_BYTES)
    bench.buffers.clear_rows(5, 9)
    bench.buffers.clear_rows(100, 1000)
    kept = (bench.cache() == 0x7C).all((0, 1, 3))
    assert np.flatnonzero(~kept).tolist() == [*range(5, 9), *range(100, 128)]
    assert not bench.cache()[:, :, ~kept].any()


def test_what_an_idle_program_leaves_is_cleared(bench: Bench) -> None:
    buffers = bench.buffers
    bench.device.wait()
    for address in (buffers.keys(1), buffers.values(2)):
        ctypes.memset(address, 0x7C, 128 * ROW_BYTES)
    ctypes.memset(buffers.bad, 1, 4 * 4)
    buffers.clear_idle()
    buffers.download_results()
    assert not bench.cache()[:, :, 127].any()
    assert bench.cache()[1, 0, :127].all()
    assert buffers.read_results()[1] is None


@pytest.mark.parametrize(("flags", "first"), [((0, 0, 0, 0), None), ((0, 1, 0, 1), 1), ((0, 0, 0, 1), 3)])
def test_results_come_with_the_first_flag(bench: Bench, flags: tuple[int, ...], first: int | None) -> None:
    buffers = bench.buffers
    bench.device.wait()
    ctypes.memmove(buffers.bad, np.array(flags, np.int32).ctypes.data, 16)
    ctypes.memmove(buffers.next_tokens, np.arange(MOST_LOGITS).ctypes.data, 8 * MOST_LOGITS)
    buffers.download_results()
    tokens, bad = buffers.read_results()
    assert tokens.tolist() == list(range(MOST_LOGITS))
    assert bad == first
    buffers.clear_bad()
    assert buffers.read_results()[1] == first, "they are as they were when they were copied"
    buffers.download_results()
    assert buffers.read_results()[1] is None


@pytest.mark.parametrize(
    ("count", "most", "last", "expected"),
    [
        (5, 10, 1, [(0, 5)]),
        (10, 10, 10, [(0, 10)]),
        (11, 10, 1, [(0, 10), (10, 11)]),
        (11, 10, 4, [(0, 7), (7, 11)]),
        (25, 10, 8, [(0, 10), (10, 17), (17, 25)]),
    ],
)
def test_the_last_part_has_all_tokens_that_need_logits(
    count: int, most: int, last: int, expected: list[tuple[int, int]]
) -> None:
    assert chunks(count, most, last) == expected


def test_rotary_frequencies_fall_from_one(bench: Bench) -> None:
    """theta^(-2 i / D) for pair i (arXiv 2104.09864)."""
    found = bench.at(bench.buffers.frequencies, 4, np.float32)
    np.testing.assert_allclose(found, [1, 1e6**-0.25, 1e6**-0.5, 1e6**-0.75], rtol=1e-6)


def test_each_row_of_logits_has_its_address(bench: Bench) -> None:
    assert [bench.buffers.logits_of(row) - bench.buffers.logits for row in (0, 1, 15)] == [0, 2 * 104, 15 * 2 * 104]
