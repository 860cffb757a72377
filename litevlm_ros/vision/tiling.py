"""Cuts a view into the tiles that InternVL sees: dynamic tiling and thumbnail (arXiv 2404.16821, section 3.3).

The pixels equal those of the published preprocessing, which resizes with Pillow's bicubic filter. Normalisation is part
of the vision encoder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from litevlm_ros.backend import CutViews, Tiles
from litevlm_ros.errors import ImageError
from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.types import RgbImage, View

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's RGB channels, from 0 to 1, by which a vision encoder normalises tiles."""

Grid = tuple[int, int]
"""Number of columns and number of rows of tiles."""

_WORKERS = min(6, os.cpu_count() or 1)


class HostTiler:
    """A `Tiler` on the CPU."""

    def __init__(self, model: ModelConfig, max_tiles: int) -> None:
        """Cuts each view into at most `max_tiles` tiles, besides the thumbnail."""
        self._model = model
        self._max_tiles = max_tiles
        # Pillow resizes outside the interpreter's lock, and six views take six times as long as one.
        self._workers = ThreadPoolExecutor(_WORKERS, "tiling")

    def cut(self, views: Sequence[View]) -> CutViews:
        """See `Tiler.cut`. The tiles are uint8 [N, size, size, 3]."""
        tiles = list(self._workers.map(self._tiles, views))
        return CutViews(np.concatenate(tiles), tuple(map(len, tiles)))

    def _tiles(self, view: View) -> Tiles:
        model = self._model
        try:
            return make_tiles(as_rgb(view.image), self._max_tiles, model.vision.image_size, model.use_thumbnail)
        except ImageError as error:
            raise ImageError(f"{view.camera}: {error}") from None


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
    check_image(image)
    height, width = image.shape[:2]
    columns, rows = choose_grid(width, height, max_tiles, size)
    picture = Image.fromarray(np.ascontiguousarray(image))
    whole = resize(picture, columns * size, rows * size)
    tiles = whole.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)
    if use_thumbnail and len(tiles) > 1:
        tiles = np.concatenate((tiles, resize(picture, size, size)[None]))
    return np.ascontiguousarray(tiles)


def check_image(image: RgbImage) -> None:
    """Raises ImageError if `image` is not uint8 [height, width, 3] with at least one pixel."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        what = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"the image is {what}; allowed: uint8 [height, width, 3] in RGB. Convert it before")
    if 0 in image.shape:
        raise ImageError(f"the image has no pixels: its shape is {list(image.shape)}. Check what the camera publishes")


def resize(picture: Image.Image, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Returns the picture resized with the bicubic filter, uint8 [height, width, 3]: first its rows, then its columns.

    Every Pillow did so that models of this family were trained with. Pillow 13 takes the columns of some images first
    if it is called once, which gives other pixels.
    """
    wide = picture.resize((width, picture.height), Image.Resampling.BICUBIC)
    return np.asarray(wide.resize((width, height), Image.Resampling.BICUBIC))
