"""`VisionEncoder` on a TensorRT engine."""

from __future__ import annotations

from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.device_memory import BlockPool, DeviceMemory
from litevlm_ros.runtime.engine import Tiles
from litevlm_ros.runtime.engine_program import Engine, Program

ITEM_BYTES = {"FLOAT": 4, "HALF": 2, "BF16": 2}
"""Of the types that visual tokens and cache rows can have, by TensorRT's names."""


class DeviceVisualTokens:
    """Visual tokens [count, text width] in device memory, which goes back to its pool with this object."""

    def __init__(self, count: int, pool: BlockPool, row_bytes: int) -> None:
        self._count = count
        self.size = count * row_bytes
        """Bytes."""
        self.address = pool.take(self, self.size)

    @property
    def count(self) -> int:
        """Rows."""
        return self._count


class TensorRTVisionEncoder:
    """One program for each number of tiles."""

    def __init__(self, engine: Engine, model: ModelConfig, memory: DeviceMemory) -> None:
        """Raises EngineError if the engine belongs to another model."""
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
        """Makes the program for this many tiles now, so that the first image need not wait for it."""
        with self._device:
            self._program(tiles)

    def encode(self, pixels: Tiles) -> DeviceVisualTokens:
        """See `VisionEncoder.encode`."""
        if pixels.shape[1:] != self._tile or not len(pixels):
            raise EngineError(f"the vision encoder takes tiles of {list(self._tile)}, not {list(pixels.shape)} pixels")
        driver, stream = self._device.driver, self._device.stream
        with self._device:
            tokens = DeviceVisualTokens(len(pixels) * self._tokens, self._pool, self._row_bytes)
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

    def close(self) -> None:
        """Frees the programs."""
        for program in self._programs.values():
            program.close()
        self._programs.clear()

    def _program(self, tiles: int) -> Program:
        if tiles not in self._programs:
            addresses = {"pixels": self._pixels, "visual_tokens": self._output}
            self._programs[tiles] = self._engine.program(0, {"pixels": (tiles, *self._tile)}, addresses)
        return self._programs[tiles]
