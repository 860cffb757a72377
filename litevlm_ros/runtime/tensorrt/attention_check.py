"""Runs an attention kernel on sample numbers in memory of its own, and compares rows of its output with numpy's.

No kernel is used unchecked: TensorRT-RTX 1.4 has one for masked attention that computes nonsense without an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt

from litevlm_ros.engines.text_blocks import qkv_width
from litevlm_ros.model_config import TextConfig, VisionConfig
from litevlm_ros.runtime.tensorrt.attention_reference import (
    TOLERANCES,
    Floats,
    Lengths,
    SampleNumbers,
    attend,
    edges,
    lengths_to_check,
    relative_error,
)
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, aligned
from litevlm_ros.runtime.tensorrt.numbers import NUMBER_BYTES, from_words

VisionEnqueue = Callable[[int, int], None]
"""Enqueues attention: the addresses of qkv and of the output."""
TextEnqueue = Callable[[int, int, int, int, int], None]
"""Enqueues attention: the addresses of qkv, keys, values, lengths and of the output."""

_LENGTHS_BYTES = 8


def check_vision(
    enqueue: VisionEnqueue, device: CudaDevice, memory: DeviceMemory, config: VisionConfig, computed: str, tiles: int
) -> str:
    """Returns what is wrong with attention within each of `tiles`; '' if its numbers are right.

    Raises EngineError if there is no room for the sample.
    """
    rows, width, size = 1 + config.grid**2, config.hidden_size, config.hidden_size // config.num_heads
    inputs, output = {"qkv": (tiles * rows, 3 * width)}, (tiles * rows, width)
    with closing(_Sample(device, memory, computed, inputs, output)) as sample:
        enqueue(sample.address("qkv"), sample.output)
        worst = 0.0
        for tile in {0, tiles - 1}:
            found = sample.read(tile * rows, rows)
            places, asking = range(tile * rows, (tile + 1) * rows), edges(rows)
            for head in {0, config.num_heads - 1}:
                columns = range(head * size, (head + 1) * size)
                queries, keys, values = (
                    sample.part("qkv", lines, range(part * width + columns.start, part * width + columns.stop))
                    for part, lines in enumerate(([places[row] for row in asking], places, places))
                )
                expected = attend(queries, keys, values)
                worst = max(worst, relative_error(found[asking, columns.start : columns.stop], expected))
            if not np.isfinite(found).all():
                worst = math.inf
    return _verdict(worst, computed, f"{tiles} tiles")


def check_text(
    enqueue: TextEnqueue,
    device: CudaDevice,
    memory: DeviceMemory,
    config: TextConfig,
    computed: str,
    rows: int,
    capacity: int,
) -> str:
    """Returns what is wrong with the attention of up to `rows` new tokens to a cache; '' if its numbers are right.

    Raises EngineError if there is no room for the sample.
    """
    cache = capacity, config.num_kv_heads * config.head_dim
    inputs = {"qkv": (rows, qkv_width(config)), "keys": cache, "values": cache}
    output = rows, config.num_heads * config.head_dim
    with closing(_Sample(device, memory, computed, inputs, output)) as sample:
        qkv, keys, values = (sample.address(name) for name in inputs)
        for lengths in lengths_to_check(rows, capacity):
            sample.write_lengths(lengths)
            sample.clear_output()
            enqueue(qkv, keys, values, sample.lengths, sample.output)
            found = sample.read(0, rows)
            worst = _text_error(sample, found, lengths, config) if np.isfinite(found).all() else math.inf
            case = f"{lengths.new} new tokens in {rows} rows, {lengths.valid} of {capacity} rows of the cache valid"
            wrong = _verdict(worst, computed, case)
            if wrong:
                return wrong
    return ""


def _text_error(sample: _Sample, found: Floats, lengths: Lengths, config: TextConfig) -> float:
    """Returns the worst error at the edges of the mask and of the groups of heads that share keys."""
    size, sharing = config.head_dim, config.num_heads // config.num_kv_heads
    worst = 0.0
    for group in {0, config.num_kv_heads - 1}:
        columns = range(group * size, (group + 1) * size)
        keys, values = (sample.part(name, range(lengths.valid), columns) for name in ("keys", "values"))
        for head in {group * sharing, (group + 1) * sharing - 1}:
            own = range(head * size, (head + 1) * size)
            for row in edges(lengths.new, lengths.new - 2):
                queries, seen = sample.part("qkv", [row], own), lengths.keys_of(row)
                expected = attend(queries, keys[:seen], values[:seen])
                worst = max(worst, relative_error(found[row : row + 1, own.start : own.stop], expected))
    return worst


def _verdict(worst: float, computed: str, case: str) -> str:
    if worst <= TOLERANCES[computed]:
        return ""
    how = f"the relative error is {worst:.1e}" if math.isfinite(worst) else "some numbers are not finite"
    return f"it computes nonsense: {how} for {case}"


class _Sample:
    """Inputs that hold sample numbers, lengths and an output, in device memory that is freed by `close`."""

    def __init__(
        self,
        device: CudaDevice,
        memory: DeviceMemory,
        computed: str,
        inputs: Mapping[str, tuple[int, int]],
        output: tuple[int, int],
    ) -> None:
        """Makes inputs and an output of these shapes. Raises EngineError if there is no room."""
        self._device, self._memory, self._computed, self._shapes = device, memory, computed, inputs
        self._numbers = SampleNumbers(computed)
        self._offsets: dict[str, int] = {}
        end = 0
        for name, (rows, width) in inputs.items():
            self._offsets[name] = end
            end += aligned(NUMBER_BYTES * rows * width)
        self._output_bytes = NUMBER_BYTES * output[0] * output[1]
        self._base = memory.allocate("attention", end + aligned(_LENGTHS_BYTES) + self._output_bytes)
        self.lengths = self._base + end
        self.output = self.lengths + aligned(_LENGTHS_BYTES)
        self._width = output[1]
        memory.fill(self._base, end, self._numbers.period)

    def close(self) -> None:
        """Waits for the device and frees the memory."""
        self._device.wait()
        self._memory.release(self._base)

    def address(self, name: str) -> int:
        """Returns the address of an input."""
        return self._base + self._offsets[name]

    def part(self, name: str, rows: Sequence[int], columns: Sequence[int]) -> npt.NDArray[np.float64]:
        """Returns rows and columns of an input as the device holds them."""
        return self._numbers.matrix(self._offsets[name] // NUMBER_BYTES, rows, columns, self._shapes[name][1])

    def write_lengths(self, lengths: Lengths) -> None:
        """Sets the lengths."""
        self._memory.write(self.lengths, np.array([lengths.new, lengths.valid], np.int32))

    def clear_output(self) -> None:
        """Zeroes the output, so that what one kernel wrote is not taken for what the next one did."""
        self._device.driver.memset_d8_async(self.output, 0, self._output_bytes, self._device.stream)

    def read(self, first: int, rows: int) -> npt.NDArray[np.float32]:
        """Waits for the device and returns rows of the output, which starts as zeros."""
        address = self.output + NUMBER_BYTES * first * self._width
        return from_words(self._memory.read(address, (rows, self._width), np.uint16), self._computed)
