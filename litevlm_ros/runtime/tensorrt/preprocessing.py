"""Cuts views into tiles on the device, with the pixels that `vision/tiling.py` makes.

A frame crosses over once, as the camera packed it. Copying it to pinned memory takes longest, so several threads do
that, and each frame is uploaded and cut while the next ones are still being copied.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from litevlm_ros.backend import CutViews
from litevlm_ros.errors import ImageError
from litevlm_ros.images.decoding import as_rgb, raw_rows
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.runtime.tensorrt.device import CudaDevice
from litevlm_ros.runtime.tensorrt.kernels.tiling import TILED_ENCODINGS, TilingKernels, TilingPlan, make_plan
from litevlm_ros.runtime.tensorrt.memory import DeviceMemory, Room, aligned
from litevlm_ros.types import AnyImage, RawImage, View
from litevlm_ros.vision.tiling import check_image, choose_grid

_PURPOSE = "frames and tiles"
_WORKERS = min(4, os.cpu_count() or 1)
"""Four threads copy six frames in 1.1 ms on an H100's host, and sixteen, whose start costs more, in 2 ms."""
_LEAST_COPY = 1 << 19
"""Bytes from which on it pays to have another thread copy."""
_MOST_MIDDLE_BYTES = 1 << 30
"""The most bytes between the two passes of resizing. Only frames some hundred times as high as wide need more."""


@dataclass(frozen=True)
class DeviceTiles:
    """Tiles uint8 [count, size, size, 3] in device memory, once the work on the device's stream is done.

    They are valid until the tiler's next `cut`.
    """

    address: int
    count: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, eq=False)
class _Frame:
    """A view's pixels, as they are uploaded, and the plan by which they are cut."""

    rows: npt.NDArray[np.uint8]
    """uint8 [rows in memory, ...], with padding between the rows if the camera pads them."""
    plan: TilingPlan

    @property
    def size(self) -> int:
        """The bytes of plan and pixels, which are uploaded together."""
        return self.pixels_at + aligned(self.rows.size)

    @property
    def pixels_at(self) -> int:
        """The place of the pixels behind the plan, in bytes."""
        return aligned(self.plan.table.nbytes)


class DeviceTiler:
    """A `Tiler` on the device. Its tiles are DeviceTiles."""

    def __init__(self, device: CudaDevice, memory: DeviceMemory, model: ModelConfig, max_tiles: int) -> None:
        """Cuts each view into at most `max_tiles` tiles, besides the thumbnail.

        Raises EngineError if NVRTC is missing or memory is short.
        """
        self._device = device
        self._memory = memory
        self._size = model.vision.image_size
        self._max_tiles = max_tiles
        self._use_thumbnail = model.use_thumbnail
        self._plan = functools.lru_cache(maxsize=32)(self._make_plan)
        self._workers = ThreadPoolExecutor(_WORKERS, "copying")
        with device:
            self._kernels = TilingKernels(device)
            self._uploaded = device.event()
            self._uploaded.record(device.stream)
            self._staging = memory.pinned((1,), np.uint8)
            self._upload = Room(device, memory, _PURPOSE)
            self._middle = Room(device, memory, _PURPOSE)
            self._tiles = Room(device, memory, _PURPOSE)
        # CUDA loads a kernel at its first launch: now, so that the first question need not wait for it.
        self.cut([View("", np.zeros((self._size, self._size, 3), np.uint8))])

    def cut(self, views: Sequence[View]) -> CutViews:
        """See `Tiler.cut`. When it returns, the images may change, but the device may still be cutting them."""
        frames = [self._frame(view) for view in views]
        counts = tuple(frame.plan.tiles for frame in frames)
        with self._device:
            self._uploaded.synchronize()  # the last call's frames may still lie in the staging memory
            self._make_room(frames)
            copies = self._start_copying(frames)
            try:
                self._enqueue(frames, copies)
            except BaseException:
                wait([part for parts in copies for part in parts])  # nobody may write there when the next frames come
                raise
            finally:
                self._uploaded.record(self._device.stream)
        return CutViews(DeviceTiles(self._tiles.address, sum(counts)), counts)

    def close(self) -> None:
        """Unloads the kernels and ends the threads."""
        self._workers.shutdown()
        self._kernels.close()

    def _frame(self, view: View) -> _Frame:
        try:
            return self._frame_of(view.image)
        except ImageError as error:
            raise ImageError(f"{view.camera}: {error}") from None

    def _frame_of(self, image: AnyImage) -> _Frame:
        if isinstance(image, RawImage) and image.encoding in TILED_ENCODINGS:
            rows, (encoding, width, height) = raw_rows(image), (image.encoding, image.width, image.height)
        else:
            rows = as_rgb(image)
            check_image(rows)
            encoding, width, height = "rgb8", rows.shape[1], rows.shape[0]
        return _Frame(rows, self._plan(encoding, width, height))

    def _make_plan(self, encoding: str, width: int, height: int) -> TilingPlan:
        grid = choose_grid(width, height, self._max_tiles, self._size)
        thumbnail = self._use_thumbnail and grid != (1, 1)
        if 3 * height * self._size * (grid[0] + thumbnail) > _MOST_MIDDLE_BYTES:
            raise ImageError(f"the image is {width}x{height}, too high to be resized on the GPU; crop it before")
        return make_plan(encoding, width, height, grid, self._size, thumbnail)

    def _make_room(self, frames: Sequence[_Frame]) -> None:
        staged = sum(frame.size for frame in frames)
        if staged > self._staging.size:
            self._memory.release_pinned(self._staging)
            self._staging = self._memory.pinned((staged,), np.uint8)
        # Work on the stream is done in order, so frames may come to the same place one after the other.
        self._upload.at_least(max(frame.size for frame in frames))
        self._middle.at_least(max(3 * frame.plan.middle_pixels for frame in frames))
        self._tiles.at_least(sum(frame.plan.tile_bytes for frame in frames))

    def _start_copying(self, frames: Sequence[_Frame]) -> list[list[Future[None]]]:
        """Has the frames copied to the staging memory, and returns what is to be waited for, for each frame."""
        share = max(_LEAST_COPY, sum(frame.size for frame in frames) // _WORKERS)
        copies, at = [], 0
        for frame in frames:
            first = at + frame.pixels_at
            staged = self._staging[first : first + frame.rows.size].reshape(frame.rows.shape)
            count = max(1, share * len(staged) // frame.rows.size)  # rows
            copies.append([
                self._workers.submit(np.copyto, staged[row : row + count], frame.rows[row : row + count])
                for row in range(0, len(staged), count)
            ])  # fmt: skip
            table = frame.plan.table.view(np.uint8)
            self._staging[at : at + table.size] = table
            at += frame.size
        return copies

    def _enqueue(self, frames: Sequence[_Frame], copies: Sequence[Sequence[Future[None]]]) -> None:
        """Uploads and cuts each frame as soon as it is copied."""
        at, tiles, table = 0, self._tiles.address, self._upload.address
        for frame, parts in zip(frames, copies, strict=True):
            for part in parts:
                part.result()
            staged = self._staging[at : at + frame.size]
            self._device.driver.memcpy_htod_async(table, staged, self._device.stream)
            self._kernels.cut(frame.plan, table, table + frame.pixels_at, self._middle.address, tiles)
            at += frame.size
            tiles += frame.plan.tile_bytes
