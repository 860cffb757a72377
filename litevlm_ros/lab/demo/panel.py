"""One picture of a demo run: every camera's frame with its caption, and the questions with their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from litevlm_ros.images.text_drawing import Colour, draw_text, text_width, wrap
from litevlm_ros.types import RgbImage

_BACKGROUND: Colour = (247, 247, 245)
_CARD: Colour = (255, 255, 255)
_EDGE: Colour = (222, 222, 218)
_INK: Colour = (32, 33, 36)
_FAINT: Colour = (120, 122, 126)
_ACCENT: Colour = (23, 105, 224)
_RIGHT: Colour = (24, 128, 56)
_WRONG: Colour = (190, 90, 0)

_MARGIN = 24
_TILE_WIDTH = 400
_SIDE_WIDTH = 460
_COLUMNS = 3
_TEXT_SIZE = 17
_LINE = 24


@dataclass(frozen=True)
class Captioned:
    """A frame with its caption."""

    camera: str
    image: RgbImage
    caption: str
    detail: str
    """A short line in small print, such as the time it took."""


@dataclass(frozen=True)
class Answered:
    """A question with its answer and, where it is known, the truth."""

    question: str
    answer: str
    truth: str | None
    right: bool
    detail: str


def draw(title: str, captioned: Sequence[Captioned], answered: Sequence[Answered]) -> RgbImage:
    """Draws frames in rows of three, in the order given, and answers in a column beside them."""
    columns = min(_COLUMNS, max(1, len(captioned)))
    rows = [captioned[start : start + columns] for start in range(0, len(captioned), columns)]
    heights = [max(_tile_height(tile) for tile in row) for row in rows]
    cards = [_card_lines(answer) for answer in answered]
    card_heights = [_LINE * len(lines) + 2 * _MARGIN - 8 for lines in cards]
    top = 2 * _MARGIN + 30
    height = top + _MARGIN + max(sum(heights) + _MARGIN * len(rows), sum(card_heights) + _MARGIN * len(cards))
    side = _SIDE_WIDTH + _MARGIN if cards else 0
    width = _MARGIN + columns * (_TILE_WIDTH + _MARGIN) + side
    canvas = np.full((height, width, 3), _BACKGROUND, np.uint8)

    draw_text(canvas, title, _MARGIN, _MARGIN + 24, _INK, 26)
    y = top
    for row, row_height in zip(rows, heights, strict=False):
        for column, tile in enumerate(row):
            _tile(canvas, tile, _MARGIN + column * (_TILE_WIDTH + _MARGIN), y, row_height)
        y += row_height + _MARGIN
    y = top
    x = _MARGIN + columns * (_TILE_WIDTH + _MARGIN)
    for lines, card_height in zip(cards, card_heights, strict=False):
        _box(canvas, x, y, _SIDE_WIDTH, card_height)
        for number, (text, colour) in enumerate(lines):
            draw_text(canvas, text, x + 18, y + _MARGIN + 12 + number * _LINE, colour, _TEXT_SIZE)
        y += card_height + _MARGIN
    return canvas


def _tile_height(tile: Captioned) -> int:
    return _image_height(tile.image) + _LINE * (len(wrap(tile.caption, _TILE_WIDTH - 32, _TEXT_SIZE)) + 1) + 30


def _image_height(image: RgbImage) -> int:
    # A tall frame is letterboxed rather than allowed to stretch its row.
    return min(_TILE_WIDTH, max(1, round(_TILE_WIDTH * image.shape[0] / image.shape[1])))


def _tile(canvas: RgbImage, tile: Captioned, x: int, y: int, height: int) -> None:
    _box(canvas, x, y, _TILE_WIDTH, height)
    image_height = _image_height(tile.image)
    scale = min(_TILE_WIDTH / tile.image.shape[1], image_height / tile.image.shape[0])
    size = (max(1, round(tile.image.shape[1] * scale)), max(1, round(tile.image.shape[0] * scale)))
    shrinking = scale < 1
    resized = cv2.resize(tile.image, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    left = x + (_TILE_WIDTH - size[0]) // 2
    canvas[y : y + size[1], left : left + size[0]] = resized
    y += image_height + 26
    draw_text(canvas, tile.camera, x + 16, y, _ACCENT, _TEXT_SIZE)
    draw_text(canvas, tile.detail, x + _TILE_WIDTH - 16 - text_width(tile.detail, 14), y, _FAINT, 14)
    for line in wrap(tile.caption, _TILE_WIDTH - 32, _TEXT_SIZE):
        y += _LINE
        draw_text(canvas, line, x + 16, y, _INK, _TEXT_SIZE)


def _card_lines(answer: Answered) -> list[tuple[str, Colour]]:
    width = _SIDE_WIDTH - 36
    lines = [(line, _ACCENT) for line in wrap(answer.question, width, _TEXT_SIZE)]
    colour = _INK if answer.truth is None else _RIGHT if answer.right else _WRONG
    lines += [(line, colour) for line in wrap(answer.answer or "(no text)", width, _TEXT_SIZE)]
    if answer.truth is not None:
        lines += [(line, _FAINT) for line in wrap(f"truth: {answer.truth}", width, _TEXT_SIZE)]
    return [*lines, (answer.detail, _FAINT)]


def _box(canvas: RgbImage, x: int, y: int, width: int, height: int) -> None:
    cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), _CARD, cv2.FILLED)
    cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), _EDGE, 1)
