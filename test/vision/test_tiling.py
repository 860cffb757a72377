from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_images import noisy_image

from litevlm_ros.errors import ImageError
from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.types import View
from litevlm_ros.vision.tiling import HostTiler, choose_grid, make_tiles

SIZES = [(w, h) for w in range(1, 3000, 97) for h in range(1, 2200, 89)] + [
    (640, 480), (1280, 720), (1920, 1080), (1920, 1200), (720, 1280), (448, 448), (896, 896), (897, 896), (3840, 2160),
    (633, 633), (634, 634), (1, 1), (4000, 1), (1, 4000), (1344, 896), (448, 896), (800, 500), (10000, 9000),
]  # fmt: skip


def published_grid(width: int, height: int, max_tiles: int, size: int) -> tuple[int, int]:
    """The published search, told as a procedure: grids by tile count; a later one wins if it is closer, or if it is as
    close and the image has more than half its pixels.
    """
    pairs = {(i, j) for n in range(1, max_tiles + 1) for i in range(1, n + 1) for j in range(1, n + 1)}
    ordered = sorted((pair for pair in pairs if 1 <= pair[0] * pair[1] <= max_tiles), key=lambda p: p[0] * p[1])
    best, least = (1, 1), float("inf")
    for i, j in ordered:
        difference = abs(width / height - i / j)
        closer = difference < least
        if closer or (difference == least and width * height > 0.5 * size * size * i * j):
            best, least = (i, j), difference
    return best


@pytest.mark.parametrize("max_tiles", [1, 2, 6, 12, 40])
@pytest.mark.parametrize("size", [224, 448])
def test_grid_is_the_published_one(max_tiles: int, size: int) -> None:
    step = 1 if max_tiles < 40 else 7
    for width, height in SIZES[::step]:
        assert choose_grid(width, height, max_tiles, size) == published_grid(width, height, max_tiles, size)


@pytest.mark.parametrize("max_tiles", range(1, 41))
def test_grids_of_one_tile_count_never_tie(max_tiles: int) -> None:
    """Otherwise the published choice would depend on the iteration order of a set."""
    counts = defaultdict(set)
    for i in range(1, max_tiles + 1):
        for j in range(1, max_tiles // i + 1):
            counts[Fraction(i, j)].add(i * j)
    ordered = sorted(counts)
    for left, right in pairwise(ordered):
        assert counts[left].isdisjoint(counts[right])


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [
        (448, 448, (1, 1)),
        (633, 633, (1, 1)),  # 1x1 and 2x2 are equally close; 633 * 633 pixels are not half of 896 * 896
        (634, 634, (2, 2)),
        (1344, 1344, (3, 3)),
        (1280, 720, (4, 2)),  # 7:4 needs 28 tiles; of 2:1, the image fills half of 4x2
        (640, 480, (4, 3)),
        (100, 4000, (1, 12)),
    ],
)
def test_known_grids(width: int, height: int, grid: tuple[int, int]) -> None:
    assert published_grid(width, height, 12, 448) == choose_grid(width, height, 12, 448)
    assert choose_grid(width, height, 12, 448) == grid


def picture(width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    rows, columns = np.indices((height, width))
    return np.stack((rows * 255 // height, columns * 255 // width, (rows * columns) % 256), -1).astype(np.uint8)


def test_tiles_are_crops_of_the_resized_image_row_by_row_and_the_thumbnail() -> None:
    image = picture(1200, 800)
    tiles = make_tiles(image, 6, 112, use_thumbnail=True)
    columns, rows = choose_grid(1200, 800, 6, 112)
    assert (columns, rows) == (3, 2)
    whole = Image.fromarray(image).resize((336, 224), Image.Resampling.BICUBIC)
    expected = [
        whole.crop((112 * column, 112 * row, 112 * (column + 1), 112 * (row + 1)))
        for row in range(rows)
        for column in range(columns)
    ]
    expected.append(Image.fromarray(image).resize((112, 112), Image.Resampling.BICUBIC))
    assert tiles.shape == (7, 112, 112, 3)
    assert tiles.dtype == np.uint8
    assert tiles.flags.c_contiguous
    for tile, crop in zip(tiles, expected, strict=True):
        np.testing.assert_array_equal(tile, np.asarray(crop))


def test_one_tile_is_a_plain_resize_without_thumbnail() -> None:
    image = picture(64, 300)
    tiles = make_tiles(image, 1, 56, use_thumbnail=True)
    # Across first, as Pillow did with every image before version 13.
    across = Image.fromarray(image).resize((56, 300), Image.Resampling.BICUBIC)
    expected = np.asarray(across.resize((56, 56), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(tiles, expected[None])


def test_strided_images_are_taken() -> None:
    image = picture(64, 48)
    np.testing.assert_array_equal(
        make_tiles(image[:, ::-1], 1, 28, False), make_tiles(image[:, ::-1].copy(), 1, 28, False)
    )


@pytest.mark.parametrize(("width", "height"), [(640, 480), (30, 40), (900, 100)])
@pytest.mark.parametrize("use_thumbnail", [True, False])
def test_there_is_a_tile_for_each_cell_of_the_grid_and_a_thumbnail(
    width: int, height: int, use_thumbnail: bool
) -> None:
    columns, rows = choose_grid(width, height, 6, 28)
    assert len(make_tiles(picture(width, height), 6, 28, use_thumbnail)) == columns * rows + int(use_thumbnail)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        None,
        [[0, 0, 0]],
    ],
)
def test_bad_images_are_refused(image: Any) -> None:
    with pytest.raises(ImageError, match=r"the image (is|has no pixels)"):
        make_tiles(image, 6, 28, True)


# --- the tiler of the host


MODEL = ModelConfig(
    vision=VisionConfig(32, 64, 2, 2, image_size=28, patch_size=14),
    text=TextConfig(48, 80, 3, 6, 2, 8, 1e-6, 1e6, 320, False, 512),
    template="internvl2_5", use_thumbnail=True, max_dynamic_tiles=6,
)  # fmt: skip


def test_the_tiler_cuts_views_in_their_order_and_counts_their_tiles() -> None:
    views = [View("front", picture(90, 60)), View("back", picture(30, 30)), View("left", picture(30, 90))]
    cut = HostTiler(MODEL, 6).cut(views)
    expected = [make_tiles(as_rgb(view.image), 6, 28, True) for view in views]
    assert cut.counts == tuple(map(len, expected))
    np.testing.assert_array_equal(cut.tiles, np.concatenate(expected))


def test_the_tiler_decodes_raw_images_and_names_the_camera_of_a_malformed_one() -> None:
    image = noisy_image("nv12", 30, 20, 3)
    tiler = HostTiler(MODEL, 1)
    np.testing.assert_array_equal(tiler.cut([View("front", image)]).tiles, make_tiles(as_rgb(image), 1, 28, True))
    with pytest.raises(ImageError, match=r"^back: step 30 is too small"):
        tiler.cut([View("front", image), View("back", replace(image, step=30, encoding="bgr8"))])
