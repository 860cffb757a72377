"""The vision encoder: one program for each number of tiles, whose visual tokens stay in device memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from litevlm_ros.backend import Tiles, VisualTokens
from litevlm_ros.engines.block_graph import UNIT
from litevlm_ros.engines.shapes import next_size, tile_counts
from litevlm_ros.engines.vision_blocks import patch_width
from litevlm_ros.errors import EngineError
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import VISION
from litevlm_ros.runtime.not_finite import not_finite
from litevlm_ros.runtime.tensorrt.attention import VisionAttention
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.module import NUMBER_MACROS, KernelModule
from litevlm_ros.runtime.tensorrt.kernels.pixels import PixelKernels
from litevlm_ros.runtime.tensorrt.memory import BlockPool, DeviceMemory, Room, aligned, places
from litevlm_ros.runtime.tensorrt.numbers import FLOAT_BYTES, NUMBER_BYTES
from litevlm_ros.runtime.tensorrt.preprocessing import DeviceTiles
from litevlm_ros.runtime.tensorrt.program import Piece, Program
from litevlm_ros.runtime.tensorrt.vision_blocks import VisionBlocks
from litevlm_ros.runtime.tensorrt.weights import PartWeights

MOST_PROGRAMS = 4
"""The numbers of tiles whose programs are kept; beyond, the one that was used longest ago is dropped."""
_CHECK_GRID, _CHECK_THREADS = 128, 256


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

    def __init__(
        self,
        model: ModelConfig,
        blocks: VisionBlocks,
        weights: PartWeights,
        attention: VisionAttention,
        device: CudaDevice,
        memory: DeviceMemory,
        *,
        precision: str,
        computed: str,
        max_tiles: int,
    ) -> None:
        """Allocates the input and compiles the kernels. Raises EngineError.

        `precision` is the engine's, for messages, and `computed` the type of numbers, 'fp16' or 'bf16'.
        """
        config = model.vision
        self.dtype = computed
        """The type of visual tokens, 'fp16' or 'bf16'."""
        self._config, self._precision = config, precision
        self._blocks, self._weights, self._attention = blocks, weights, attention
        self._device = device
        self._tile = (config.image_size, config.image_size, 3)
        self._tile_bytes = int(np.prod(self._tile))
        self._tile_rows, self._tokens = 1 + config.grid**2, config.tokens_per_tile
        self._row_bytes = model.text.hidden_size * NUMBER_BYTES
        self._counts = tile_counts(max_tiles)
        self._staging = memory.pinned((self._counts[-1], *self._tile), "uint8")
        self._pixels = memory.allocate("pixels", self._staging.nbytes)
        self._bad = memory.allocate("pixels", FLOAT_BYTES)
        self._host_bad = memory.pinned((1,), np.int32)
        self._activations = Room(device, memory, "vision activations")
        self._unit = memory.allocate("pixels", FLOAT_BYTES)
        memory.write(self._unit, np.ones(1, np.float32))
        self._zeros = Room(device, memory, "vision activations")  # which nobody writes
        for room in (self._activations, self._zeros):
            room.on_move(self._drop_programs)
        self._pool = BlockPool(memory, "visual tokens")
        self._pixel_kernels = PixelKernels(device, config, computed)
        self._checks = KernelModule(device, "finite.cu", {"check_finite": "PPi"}, NUMBER_MACROS[computed])
        self._programs: OrderedDict[int, tuple[Program, int]] = OrderedDict()

    def prepare(self, tiles: int = 1) -> None:
        """Makes the program for so many tiles now, so that the first image need not wait for it."""
        with self._device:
            self._program(tiles)
            self._require_finite(self._pixels, 0)  # loads the kernel

    def encode(self, pixels: Tiles) -> DeviceVisualTokens:
        """See `VisionEncoder.encode`. Raises NotFiniteError if any number of the result is not finite."""
        if not len(pixels) or (isinstance(pixels, np.ndarray) and pixels.shape[1:] != self._tile):
            shape = list(getattr(pixels, "shape", [0]))
            raise EngineError(f"the vision encoder takes tiles of {list(self._tile)}, not {shape} pixels")
        driver, stream, most = self._device.driver, self._device.stream, self._counts[-1]
        with self._device:
            tokens = self.empty(len(pixels) * self._tokens)
            target = tokens.address
            for first in range(0, len(pixels), most):
                count = min(most, len(pixels) - first)
                self._upload(pixels, first, count)
                program, output = self._program(next_size(count, self._counts))
                program.run()
                size = count * self._tokens * self._row_bytes
                driver.memcpy_dtod_async(target, output, size, stream)
                target += size
            self._require_finite(tokens.address, tokens.size // NUMBER_BYTES)
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

    def forget_graphs(self) -> None:
        """Has all programs recorded anew, as blocks' working memory has moved. None of them may be running."""
        for program, _ in self._programs.values():
            program.forget_graph()

    def close(self) -> None:
        """Frees programs and kernels."""
        self._drop_programs()
        self._pixel_kernels.close()
        self._checks.close()

    def empty(self, count: int) -> DeviceVisualTokens:
        """Returns room for so many tokens, uninitialized. The device must be current. Raises EngineError."""
        return DeviceVisualTokens(count, self._row_bytes, _Block(self._pool, count * self._row_bytes))

    def _drop_programs(self) -> None:
        """Frees all programs, which are made again when they are needed, as activations have moved."""
        for program, _ in self._programs.values():
            program.close()
        self._programs.clear()

    def _upload(self, pixels: Tiles, first: int, count: int) -> None:
        driver, stream = self._device.driver, self._device.stream
        if isinstance(pixels, DeviceTiles):
            size = count * self._tile_bytes
            driver.memcpy_dtod_async(self._pixels, pixels.address + first * self._tile_bytes, size, stream)
            return
        self._device.wait()  # for the last upload, which still reads the staging buffer
        self._staging[:count] = pixels[first : first + count]
        driver.memcpy_htod_async(self._pixels, self._staging[:count], stream)

    def _require_finite(self, numbers: int, count: int) -> None:
        """Waits for all work. Raises NotFiniteError if one of `count` numbers is not finite.

        Programs do not check their own results: tiles that fill up a shape are older ones, which are nobody's concern.
        """
        driver, stream = self._device.driver, self._device.stream
        self._checks.launch("check_finite", (_CHECK_GRID, 1), (_CHECK_THREADS, 1, 1), numbers, self._bad, count)
        driver.memcpy_dtoh_async(self._host_bad, self._bad, stream)
        self._device.wait()
        if self._host_bad[0]:
            driver.memset_d8_async(self._bad, 0, FLOAT_BYTES, stream)
            raise not_finite(VISION, self._precision, None)

    def _program(self, tiles: int) -> tuple[Program, int]:
        """Returns the program for so many tiles and the address of its result."""
        if tiles not in self._programs:
            if len(self._programs) >= MOST_PROGRAMS:
                self._programs.popitem(last=False)[1][0].close()
            rows, width = tiles * self._tile_rows, self._config.hidden_size
            sizes = {
                "patches": NUMBER_BYTES * rows * patch_width(self._config),
                "residual": FLOAT_BYTES * rows * width,
                "sum": FLOAT_BYTES * rows * width,
                "change": NUMBER_BYTES * rows * width,
                "qkv": 3 * NUMBER_BYTES * rows * width,
                "attention": NUMBER_BYTES * rows * width,
                "visual_tokens": tiles * self._tokens * self._row_bytes,
            }
            address, _ = self._activations.at_least(sum(map(aligned, sizes.values())))
            zeros, _ = self._zeros.at_least(NUMBER_BYTES * rows * width)
            at = {**places(address, sizes), "zeros": zeros, UNIT: self._unit}
            pieces = list(self._pieces(tiles, at))
            program = Program(self._device, f"the vision encoder for {tiles} tiles", pieces)
            self._programs[tiles] = program, at["visual_tokens"]
        self._programs.move_to_end(tiles)
        return self._programs[tiles]

    def _pieces(self, tiles: int, at: dict[str, int]) -> Iterator[Piece]:
        """Yields the parts of the program for so many tiles, whose activations lie `at` these addresses."""
        rows, runs = tiles * self._tile_rows, iter(self._weights.runs)
        patches, qkv, mlp, projector = (
            self._blocks.block(name, rows) for name in ("patches", "qkv", "mlp", "projector")
        )
        attention = self._attention.make(tiles)
        change = at["zeros"]
        yield lambda: self._pixel_kernels.patches(self._pixels, tiles, at["patches"])
        yield patches.piece(next(runs), at, "patches", "sum")
        for _ in range(self._config.num_layers):
            yield qkv.piece(next(runs), {**at, "change": change}, "sum", "change", "residual", "qkv")
            yield lambda: attention.enqueue(at["qkv"], at["attention"])
            yield mlp.piece(next(runs), at, "attention", "residual", "sum", "change")
            change = at["change"]
        yield projector.piece(next(runs), at, "sum", "change", "visual_tokens")
