"""The kernels of tiling.cu, run on the host, make the tiles that Pillow and OpenCV make, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from host_kernels import run_kernel
from raw_images import noisy_image

from litevlm_ros.images.decoding import as_rgb, raw_rows
from litevlm_ros.runtime.tensorrt.kernels.module import read_source
from litevlm_ros.runtime.tensorrt.kernels.tiling import TILED_ENCODINGS, make_plan
from litevlm_ros.types import RawImage
from litevlm_ros.vision.tiling import choose_grid, make_tiles

SOURCE = read_source("tiling.cu")
THREADS = 64


def on_kernels(image: RawImage, max_tiles: int, size: int, use_thumbnail: bool) -> np.ndarray:
    grid = choose_grid(image.width, image.height, max_tiles, size)
    plan = make_plan(image.encoding, image.width, image.height, grid, size, use_thumbnail and grid != (1, 1))
    frame = np.ascontiguousarray(raw_rows(image))
    middle = np.full(3 * plan.middle_pixels, 0xA5, np.uint8)
    tiles = np.full((plan.tiles, size, size, 3), 0xA5, np.uint8)
    assert tiles.size == plan.tile_bytes
    for name, threads, arrays in (
        ("across", plan.middle_pixels, (frame, plan.table, middle)),
        ("down", plan.tile_bytes, (plan.table, middle, tiles)),
    ):
        blocks = -(-threads // THREADS)
        run_kernel(SOURCE, name, (blocks,), (THREADS,), [("P", array.ctypes.data) for array in arrays])
    return tiles


@pytest.mark.parametrize(
    ("width", "height"),
    [(8, 8), (1, 1), (1, 9), (9, 1), (3, 2), (7, 11), (16, 9), (33, 21), (61, 7), (5, 64), (8, 13), (13, 8)],
)
@pytest.mark.parametrize("size", [8, 11])
def test_one_tile_of_any_size_is_pillows(width: int, height: int, size: int) -> None:
    image = noisy_image("rgb8", width, height, seed=width)
    np.testing.assert_array_equal(on_kernels(image, 1, size, True), make_tiles(as_rgb(image), 1, size, True))


@pytest.mark.parametrize("use_thumbnail", [False, True])
@pytest.mark.parametrize(("width", "height"), [(30, 20), (40, 13), (9, 30)])
def test_several_tiles_and_the_thumbnail_are_pillows(width: int, height: int, use_thumbnail: bool) -> None:
    image = noisy_image("bgr8", width, height)
    expected = make_tiles(as_rgb(image), 6, 8, use_thumbnail)
    assert len(expected) > 2
    np.testing.assert_array_equal(on_kernels(image, 6, 8, use_thumbnail), expected)


@pytest.mark.parametrize("encoding", sorted(TILED_ENCODINGS))
@pytest.mark.parametrize("padding", [0, 5])
def test_colours_of_every_encoding_are_opencvs(encoding: str, padding: int) -> None:
    """Without resizing, tiles hold the converted pixels as they are."""
    image = noisy_image(encoding, 16, 16, padding)
    np.testing.assert_array_equal(on_kernels(image, 1, 16, False)[0], as_rgb(image))


@pytest.mark.parametrize("encoding", ["uyvy", "nv12", "bgra8"])
def test_encodings_are_resized_as_their_rgb_image(encoding: str) -> None:
    image = noisy_image(encoding, 22, 14, 3)
    np.testing.assert_array_equal(on_kernels(image, 2, 8, True), make_tiles(as_rgb(image), 2, 8, True))
