"""Pictures of what a camera saw and what was said of it."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

import cv2
import numpy as np

from litevlm_ros.images.text_drawing import Colour, draw_text, text_width, wrap
from litevlm_ros.types import RgbImage

_INK: Colour = (255, 255, 255)
_FAINT: Colour = (205, 208, 212)
_ACCENT: Colour = (124, 196, 255)
_SHADE = 0.35
"""Brightness that is left of the image behind text."""
_MOST_LINES = 4
_MOST_CHARACTERS = 800
"""More than these lines hold."""
_SMALLEST_TEXT = 13


def draw_overlay(image: RgbImage, camera: str, caption: str, details: str, width: int) -> RgbImage:
    """A copy of `image`, at most `width` pixels wide, with the camera's name and `details` above and the caption below.

    uint8 [height, width, 3]. Text is legible on images of 160 pixels and more; smaller ones are enlarged to that.
    """
    canvas = _scaled(image, max(160, min(width, image.shape[1])))
    height, width = canvas.shape[:2]
    size = max(_SMALLEST_TEXT, width // 36)
    margin, line = size // 2, round(1.45 * size)
    _shade(canvas, 0, line + margin)
    baseline = margin + size
    draw_text(canvas, camera, margin, baseline - margin // 4, _ACCENT, size)
    small = max(_SMALLEST_TEXT - 2, round(0.7 * size))
    room = width - 3 * margin - text_width(camera, size)
    details = _fit(details, room, small)
    draw_text(canvas, details, width - margin - text_width(details, small), baseline - margin // 4, _FAINT, small)
    lines = wrap(caption[:_MOST_CHARACTERS], width - 2 * margin, size)
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], _fit(" ".join(lines[_MOST_LINES - 1 :]), width - 2 * margin, size)]
    top = max(0, height - len(lines) * line - margin)
    _shade(canvas, top, height)
    for number, text in enumerate(lines):
        draw_text(canvas, text, margin, top + margin // 2 + size + number * line, _INK, size)
    return canvas


def grid(pictures: Sequence[RgbImage], width: int) -> RgbImage:
    """Pictures side by side in equal cells, in the order given, `width` pixels together. A picture of another shape
    than the first is letterboxed."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    cell_width = max(1, width // columns)
    cell_height = max(1, round(cell_width * pictures[0].shape[0] / pictures[0].shape[1]))
    canvas = np.zeros((rows * cell_height, columns * cell_width, 3), np.uint8)
    for number, picture in enumerate(pictures):
        scale = min(cell_width / picture.shape[1], cell_height / picture.shape[0])
        small = _scaled(picture, max(1, int(picture.shape[1] * scale)))[:cell_height]
        y = number // columns * cell_height + (cell_height - small.shape[0]) // 2
        x = number % columns * cell_width + (cell_width - small.shape[1]) // 2
        canvas[y : y + small.shape[0], x : x + small.shape[1]] = small
    return canvas


def _scaled(image: RgbImage, width: int) -> RgbImage:
    if width == image.shape[1]:
        return image.copy()
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    shrinking = width < image.shape[1]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized, np.uint8)


def _shade(canvas: RgbImage, top: int, bottom: int) -> None:
    canvas[top:bottom] = (canvas[top:bottom] * _SHADE).astype(np.uint8)


def _fit(text: str, width: int, size: int) -> str:
    """The text, or as much of it as fits with an ellipsis."""
    if text_width(text, size) <= width:
        return text
    fits = bisect.bisect_right(range(1, len(text)), width, key=lambda end: text_width(f"{text[:end]}…", size))
    return f"{text[:fits].rstrip()}…" if fits else ""
