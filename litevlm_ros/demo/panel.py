"""One picture of a demo run: every camera's frame with its caption, and the questions with their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from litevlm_ros.types import RgbImage

_Colour = tuple[int, int, int]
_BACKGROUND: _Colour = (247, 247, 245)
_CARD: _Colour = (255, 255, 255)
_EDGE: _Colour = (222, 222, 218)
_INK: _Colour = (32, 33, 36)
_FAINT: _Colour = (120, 122, 126)
_ACCENT: _Colour = (23, 105, 224)
_RIGHT: _Colour = (24, 128, 56)
_WRONG: _Colour = (190, 90, 0)

_MARGIN = 24
_TILE_WIDTH = 400
_SIDE_WIDTH = 460
_COLUMNS = 3
_TEXT_SIZE = 17
_LINE = 24


@dataclass(frozen=True)
class Captioned:
    """A frame with what was said about it."""

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
    """Lays out a picture. The frames come in rows of three in the order given, the answers in a column beside them."""
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

    _text(canvas, title, _MARGIN, _MARGIN + 24, _INK, 26)
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
            _text(canvas, text, x + 18, y + _MARGIN + 12 + number * _LINE, colour)
        y += card_height + _MARGIN
    return canvas


def wrap(text: str, width: int, size: int = _TEXT_SIZE) -> list[str]:
    """Breaks a text into lines of at most `width` pixels, words longer than that included."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        while _width(word, size) > width:
            fits = next(end for end in range(len(word) - 1, 0, -1) if end == 1 or _width(word[:end], size) <= width)
            lines += [line, word[:fits]] if line else [word[:fits]]
            line, word = "", word[fits:]
        if line and _width(f"{line} {word}", size) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line] if line or not lines else lines


def _tile_height(tile: Captioned) -> int:
    return _image_height(tile.image) + _LINE * (len(wrap(tile.caption, _TILE_WIDTH - 32)) + 1) + 30


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
    _text(canvas, tile.camera, x + 16, y, _ACCENT)
    _text(canvas, tile.detail, x + _TILE_WIDTH - 16 - _width(tile.detail, 14), y, _FAINT, 14)
    for line in wrap(tile.caption, _TILE_WIDTH - 32):
        y += _LINE
        _text(canvas, line, x + 16, y, _INK)


def _card_lines(answer: Answered) -> list[tuple[str, _Colour]]:
    width = _SIDE_WIDTH - 36
    lines = [(line, _ACCENT) for line in wrap(answer.question, width)]
    colour = _INK if answer.truth is None else _RIGHT if answer.right else _WRONG
    lines += [(line, colour) for line in wrap(answer.answer or "(no text)", width)]
    if answer.truth is not None:
        lines += [(line, _FAINT) for line in wrap(f"truth: {answer.truth}", width)]
    return [*lines, (answer.detail, _FAINT)]


def _box(canvas: RgbImage, x: int, y: int, width: int, height: int) -> None:
    cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), _CARD, cv2.FILLED)
    cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), _EDGE, 1)


# OpenCV 5 brings a TrueType font; before it there are only Hershey's plotter fonts, which know no more than ASCII.
_FONT = cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None
_HERSHEY = cv2.FONT_HERSHEY_DUPLEX


def _text(canvas: RgbImage, text: str, x: int, y: int, colour: _Colour, size: int = _TEXT_SIZE) -> None:
    if _FONT is not None:
        cv2.putText(canvas, text, (x, y), colour, _FONT, size)
    else:
        cv2.putText(canvas, text, (x, y), _HERSHEY, size / 30, colour, 1, cv2.LINE_AA)


def _width(text: str, size: int) -> int:
    if _FONT is not None:
        return int(cv2.getTextSize((0, 0), text, (0, 0), _FONT, size)[2])
    return int(cv2.getTextSize(text, _HERSHEY, size / 30, 1)[0][0])
