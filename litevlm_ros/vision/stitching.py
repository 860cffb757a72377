"""Shows several views as one picture: each fills a cell of a grid and bears its camera's name.

Mini-InternVL2-DA-DriveLM (arXiv 2410.16261) was trained with the six cameras of nuScenes in this form, and other models
tell by it which camera saw what. Six cameras give a picture of 2688x896 pixels, which InternVL cuts into 12 tiles.

Source of layout, lettering and pixels: OpenGVLab/InternVL, internvl_chat/tools/images_stitching.py.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from litevlm_ros.errors import ImageError, printable
from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.images.text_drawing import draw_text
from litevlm_ros.types import RgbImage, View
from litevlm_ros.vision.camera_words import directions
from litevlm_ros.vision.tiling import check_image, resize

Picture = tuple[View, ...]
"""The views that a model sees as one picture: a view alone, or several stitched together."""

_PLACES = tuple(
    frozenset(place.split())
    for place in ("front left", "front", "front right", "left", "right", "back left", "back", "back right")
)
"""The directions in which cameras look, in the order of their cells, row by row."""

_MOST_COLUMNS = 3
_MAGENTA = (255, 0, 255)
_LETTERS = 50 / 448
"""The height of the font, as a share of the cell's height."""
_MOST_LETTERS = 40


def pictures(views: Sequence[View], stitch: bool) -> list[Picture]:
    """Returns the pictures in which a model is shown these views: one for each, or with `stitch` one of all."""
    return [arrange(views)] if stitch and views else [(view,) for view in views]


def arrange(views: Sequence[View]) -> Picture:
    """Returns the views in the order of their cells.

    Cameras that are named by where they look come in the order front left, front, front right, left, right, back left,
    back, back right. Other cameras follow, in the order in which they were given.
    """

    def place(view: View) -> int:
        looks = frozenset(directions(view.camera))
        return _PLACES.index(looks) if looks in _PLACES else len(_PLACES)

    return tuple(sorted(views, key=place))


def grid(count: int) -> tuple[int, int]:
    """Returns the number of columns and rows of `count` cells: at most three columns, and two for four cells."""
    columns = 2 if count == 4 else min(count, _MOST_COLUMNS)
    return columns, -(-count // columns)


def cell_place(number: int, count: int) -> tuple[int, int]:
    """Returns the column and row of cell `number` of `count`. Cells are filled row by row; all numbers begin at 0."""
    row, column = divmod(number, grid(count)[0])
    return column, row


def names(picture: Picture) -> str:
    """Returns the name of the camera that took the picture, or the names of all, with commas between them."""
    return ", ".join(view.camera for view in picture)


def frame_key(picture: Picture) -> Hashable | None:
    """Returns equal keys for pictures of the same frames, and None if a view names no frame."""
    return None if any(view.frame is None for view in picture) else tuple((view.camera, view.frame) for view in picture)


class Stitcher:
    """Makes one view of each picture, on the CPU."""

    def __init__(self, tile_size: int) -> None:
        """`tile_size` is the side of the vision encoder's tiles in pixels. A cell is two tiles wide and one high."""
        self._width, self._height = 2 * tile_size, tile_size
        self._workers = ThreadPoolExecutor(6, "stitching")  # Pillow resizes outside the interpreter's lock

    def view(self, picture: Picture) -> View:
        """Returns a view alone as it is, and several as one of uint8 [rows * height, columns * width, 3].

        Cells that no camera fills are black. Raises ImageError, which names the camera.
        """
        if len(picture) == 1:
            return picture[0]
        columns, rows = grid(len(picture))
        canvas = np.zeros((rows, self._height, columns, self._width, 3), np.uint8)
        for number, cell in enumerate(self._workers.map(self._cell, picture)):
            column, row = cell_place(number, len(picture))
            canvas[row, :, column] = cell
        image = canvas.reshape(rows * self._height, columns * self._width, 3)
        return View(names(picture), image, frame_key(picture))

    def _cell(self, view: View) -> npt.NDArray[np.uint8]:
        try:
            image = as_rgb(view.image)
            check_image(image)
        except ImageError as error:
            raise ImageError(f"{view.camera}: {error}") from None
        cell = resize(Image.fromarray(np.ascontiguousarray(image)), self._width, self._height)
        return write_name(cell, view.camera)


def write_name(cell: RgbImage, camera: str) -> RgbImage:
    """Returns a copy of the cell with the camera's name in its upper left corner, such as CAM_FRONT_LEFT.

    The letters are DejaVu Sans Bold, as in training, where the system has this font.
    """
    name = printable(camera.upper(), _MOST_LETTERS)
    name = name if name.startswith("CAM") else f"CAM_{name}"
    size = max(1, round(_LETTERS * len(cell)))
    font = _font(size)
    if font is None:
        copy = cell.copy()
        draw_text(copy, name, 0, size, _MAGENTA, size)
        return copy
    picture = Image.fromarray(cell)
    ImageDraw.Draw(picture).text((0, 0), name, fill=_MAGENTA, font=font)
    return np.asarray(picture)


@functools.cache
def _font(size: int) -> Any:
    """Returns DejaVu Sans Bold in this size in pixels, or None if the system does not have it."""
    try:
        return ImageFont.truetype("DejaVuSans-Bold.ttf", size)
    except OSError:
        return None
