"""Cuts a view into the tiles that InternVL sees: dynamic tiling and thumbnail (arXiv 2404.16821, section 3.3).

The pixels equal those of the published preprocessing, which resizes with Pillow's bicubic filter. Normalisation is part
of the vision encoder's graph.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from litevlm_ros.errors import ImageError
from litevlm_ros.types import RgbImage

Grid = tuple[int, int]
"""Number of columns and number of rows of tiles."""


def choose_grid(width: int, height: int, max_tiles: int, size: int) -> Grid:
    """Returns the grid of at most `max_tiles` tiles of `size` pixels whose aspect ratio is closest to the image's.

    If several grids are equally close, such as 1x1 and 2x2, the largest one wins of whose pixels the image has more
    than half; if there is none such, the smallest grid.
    """
    grids = [
        (columns, rows)
        for columns in range(1, max_tiles + 1)
        for rows in range(1, max_tiles // columns + 1)
    ]  # fmt: skip
    distances = {grid: abs(width / height - grid[0] / grid[1]) for grid in grids}
    nearest = min(distances.values())
    tied = sorted((grid for grid in grids if distances[grid] == nearest), key=lambda grid: grid[0] * grid[1])
    filled = [grid for grid in tied if width * height > 0.5 * size * size * grid[0] * grid[1]]
    return filled[-1] if filled else tied[0]


def make_tiles(image: RgbImage, max_tiles: int, size: int, use_thumbnail: bool) -> npt.NDArray[np.uint8]:
    """Returns the tiles of one view as uint8 [N, size, size, 3], row by row.

    If there is more than one, and `use_thumbnail`, the whole view on one tile comes last.

    Raises ImageError if `image` is not uint8 [height, width, 3] with at least one pixel.
    """
    _check_image(image)
    height, width = image.shape[:2]
    columns, rows = choose_grid(width, height, max_tiles, size)
    picture = Image.fromarray(np.ascontiguousarray(image))
    whole = _resize(picture, columns * size, rows * size)
    tiles = whole.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)
    if use_thumbnail and len(tiles) > 1:
        tiles = np.concatenate((tiles, _resize(picture, size, size)[None]))
    return np.ascontiguousarray(tiles)


def _check_image(image: RgbImage) -> None:
    """Raises ImageError if `image` is not uint8 [height, width, 3] with at least one pixel."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"the image is {what}; allowed: uint8 [height, width, 3] in RGB. Convert it before")
    if 0 in image.shape:
        raise ImageError(f"the image has no pixels: its shape is {list(image.shape)}. Check what the camera publishes")


def _resize(picture: Image.Image, width: int, height: int) -> npt.NDArray[np.uint8]:
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
