"""Launches the kernels of tiling.cu, and writes the plan by which they cut a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.module import KernelModule
from litevlm_ros.vision.bicubic import Weights, weights
from litevlm_ros.vision.tiling import Grid

_BGR: tuple[int, tuple[int, int, int]] = (3, (2, 1, 0))
_BGRA: tuple[int, tuple[int, int, int]] = (4, (2, 1, 0))
_GREY: tuple[int, tuple[int, int, int]] = (1, (0, 0, 0))
_PACKED: Mapping[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)), "rgba8": (4, (0, 1, 2)), "bgr8": _BGR, "8UC3": _BGR, "bgra8": _BGRA, "8UC4": _BGRA,
    "mono8": _GREY, "8UC1": _GREY,
}  # fmt: skip
"""Encoding → number of bytes of a pixel, and places of red, green and blue among them."""
_UYVY, _YUYV = (1, 0, 2), (0, 1, 3)
_YUV422: Mapping[str, tuple[int, int, int]] = {
    "yuv422": _UYVY, "uyvy": _UYVY, "yuv422_yuy2": _YUYV, "yuyv": _YUYV,
}  # fmt: skip
"""Encoding → places of luma, U and V among the four bytes of two pixels."""
_TWO_PLANES: Mapping[str, tuple[int, int, int]] = {"nv12": (0, 1, 1), "nv21": (1, 0, 1), "nv24": (0, 1, 0)}
"""Encoding → places of U and V among two bytes of chroma, and 1 if 2 x 2 pixels share these, 0 if each has its own."""

TILED_ENCODINGS = frozenset({*_PACKED, *_YUV422, *_TWO_PLANES})
"""The encodings of `images/decoding.py` that the kernels read."""

_THREADS = 256
_HEADER_INTS = 3 * 5 + 5 + 2 * 9


@dataclass(frozen=True, eq=False)
class TilingPlan:
    """The way in which frames of one encoding and size are cut."""

    table: npt.NDArray[np.int32]
    """The numbers that the kernels read: the struct `Plan` of tiling.cu and the weights."""
    tiles: int
    """Number of tiles, with the thumbnail."""
    middle_pixels: int
    """Number of pixels between the two passes."""
    tile_bytes: int
    """Size of all tiles in bytes."""


def make_plan(encoding: str, width: int, height: int, grid: Grid, size: int, thumbnail: bool) -> TilingPlan:
    """Returns the plan for frames of one of TILED_ENCODINGS, whose rows have no padding.

    They become a `grid` of tiles of `size` pixels, and with `thumbnail` one more of the whole frame.
    """
    targets, parts = [], []
    place, pixels, tiles = _HEADER_INTS, 0, 0
    for columns, rows in (grid, (1, 1)) if thumbnail else (grid,):
        across, down = weights(width, columns * size), weights(height, rows * size)
        place_down = place + _ints(across)
        targets.append((columns * size, rows * size, columns, tiles, pixels,
                        place, len(across.taps), place_down, len(down.taps)))  # fmt: skip
        parts += [across.first, across.taps.reshape(-1), down.first, down.taps.reshape(-1)]
        place = place_down + _ints(down)
        pixels += columns * size * height
        tiles += columns * rows
    components, is_yuv = _components(encoding, width, height)
    header = [*components, int(is_yuv), width, height, size, len(targets)]
    header += [number for target in targets for number in target]
    header += [0] * (_HEADER_INTS - len(header))
    return TilingPlan(np.concatenate([np.array(header, np.int32), *parts]), tiles, pixels, tiles * size * size * 3)


def _ints(part: Weights) -> int:
    return part.first.size + part.taps.size


def _components(encoding: str, width: int, height: int) -> tuple[list[int], bool]:
    """Returns base, row, step, down and across of the three components, and whether they are Y, U and V."""
    if encoding in _PACKED:
        samples, places = _PACKED[encoding]
        return [number for place in places for number in (place, samples * width, samples, 0, 0)], False
    if encoding in _YUV422:
        luma, u, v = _YUV422[encoding]
        return [luma, 2 * width, 2, 0, 0, u, 2 * width, 4, 0, 1, v, 2 * width, 4, 0, 1], True
    u, v, shared = _TWO_PLANES[encoding]
    base, row = width * height, width if shared else 2 * width
    return [0, width, 1, 0, 0, base + u, row, 2, shared, shared, base + v, row, 2, shared, shared], True


class TilingKernels:
    """The kernels of tiling.cu. All addresses are in device memory."""

    def __init__(self, device: CudaDevice) -> None:
        """Compiles and loads the kernels. Raises EngineError if NVRTC is missing or refuses them."""
        self._kernels = KernelModule(device, "tiling.cu", {"across": "PPP", "down": "PPP"})

    def cut(self, plan: TilingPlan, table: int, frame: int, middle: int, tiles: int) -> None:
        """Writes the `tiles` of a `frame`, uint8 [plan.tiles, size, size, 3].

        `table` is where plan.table was copied to, and `middle` takes 3 * plan.middle_pixels bytes.
        """
        self._launch("across", plan.middle_pixels, frame, table, middle)
        self._launch("down", plan.tile_bytes, table, middle, tiles)

    def close(self) -> None:
        """Unloads the kernels."""
        self._kernels.close()

    def _launch(self, name: str, threads: int, *addresses: int) -> None:
        self._kernels.launch(name, (-(-threads // _THREADS), 1), (_THREADS, 1, 1), *addresses)
