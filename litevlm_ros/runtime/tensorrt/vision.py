"""The vision encoder on a TensorRT engine, and the visual tokens that it leaves in device memory."""

from __future__ import annotations

from collections.abc import Sequence

from litevlm_ros.backend import Tiles, VisualTokens
from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt.memory import BlockPool, DeviceMemory
from litevlm_ros.runtime.tensorrt.program import Engine, Program

ITEM_BYTES = {"FLOAT": 4, "HALF": 2, "BF16": 2}
"""Bytes of the types that visual tokens and cache rows can have, by TensorRT's names."""


class _Block:
    """Device memory that goes back to its pool when this object is gone."""

    def __init__(self, pool: BlockPool, size: int) -> None:
        self.address = pool.take(self, size)


class DeviceVisualTokens:
    """Visual tokens [count, text width] in device memory: rows of a block from `first` on."""

    def __init__(self, count: int, row_bytes: int, block: _Block, first: int = 0) -> None:
        self._count = count
        self._row_bytes = row_bytes
        self._block = block
        self._first = first
        self.size = count * row_bytes
        """Size of the rows in bytes."""
        self.address = block.address + first * row_bytes

    @property
    def count(self) -> int:
        """See `VisualTokens.count`."""
        return self._count

    def part(self, first: int, end: int) -> DeviceVisualTokens:
        """See `VisualTokens.part`."""
        return DeviceVisualTokens(end - first, self._row_bytes, self._block, self._first + first)


class TensorRTVisionEncoder:
    """A `VisionEncoder` with one program for each number of tiles."""

    def __init__(self, engine: Engine, model: ModelConfig, memory: DeviceMemory) -> None:
        """Allocates the buffers. Raises EngineError if the engine belongs to another model or memory is short."""
        size, tokens, width = model.vision.image_size, model.vision.tokens_per_tile, model.text.hidden_size
        engine.check({"pixels": ("N", size, size, 3), "visual_tokens": ("N", tokens, width)})
        self._engine = engine
        self._device = engine.device
        self.dtype = engine.tensors["visual_tokens"].dtype
        self._tile = (size, size, 3)
        self._tokens = tokens
        self._row_bytes = width * ITEM_BYTES[self.dtype]
        _, self._most = engine.limits("pixels", 0)
        self._staging = memory.pinned((self._most, *self._tile), "uint8")
        self._pixels = memory.allocate("pixels and tokens", self._staging.nbytes)
        self._output = memory.allocate("pixels and tokens", self._most * tokens * self._row_bytes)
        self._pool = BlockPool(memory, "visual tokens")
        self._programs: dict[int, Program] = {}

    def prepare(self, tiles: int = 1) -> None:
        """Makes the program for so many tiles now, so that the first image need not wait for it."""
        with self._device:
            self._program(tiles)

    def encode(self, pixels: Tiles) -> DeviceVisualTokens:
        """See `VisionEncoder.encode`."""
        if pixels.shape[1:] != self._tile or not len(pixels):
            raise EngineError(f"the vision encoder takes tiles of {list(self._tile)}, not {list(pixels.shape)} pixels")
        driver, stream = self._device.driver, self._device.stream
        with self._device:
            tokens = self.empty(len(pixels) * self._tokens)
            target = tokens.address
            for first in range(0, len(pixels), self._most):
                part = pixels[first : first + self._most]
                self._staging[: len(part)] = part
                driver.memcpy_htod_async(self._pixels, self._staging[: len(part)], stream)
                self._program(len(part)).run()
                size = len(part) * self._tokens * self._row_bytes
                driver.memcpy_dtod_async(target, self._output, size, stream)
                target += size
                self._device.wait()
        return tokens

    def join(self, parts: Sequence[VisualTokens]) -> DeviceVisualTokens:
        """See `VisionEncoder.join`."""
        with self._device:
            tokens = self.empty(sum(part.count for part in parts))
            target = tokens.address
            for part in parts:
                assert isinstance(part, DeviceVisualTokens)
                self._device.driver.memcpy_dtod_async(target, part.address, part.size, self._device.stream)
                target += part.size
            self._device.wait()
        return tokens

    def close(self) -> None:
        """Frees the programs."""
        for program in self._programs.values():
            program.close()
        self._programs.clear()

    def empty(self, count: int) -> DeviceVisualTokens:
        """Returns room for so many tokens, uninitialized. The device must be current. Raises EngineError."""
        return DeviceVisualTokens(count, self._row_bytes, _Block(self._pool, count * self._row_bytes))

    def _program(self, tiles: int) -> Program:
        if tiles not in self._programs:
            addresses = {"pixels": self._pixels, "visual_tokens": self._output}
            self._programs[tiles] = self._engine.program(0, {"pixels": (tiles, *self._tile)}, addresses)
        return self._programs[tiles]
