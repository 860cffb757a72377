"""Draws text in any language on images.

OpenCV 5 brings fonts with Latin, Cyrillic, Greek, Hangul, Chinese and Japanese characters. Earlier versions have only
Hershey's plotter fonts, which know no more than ASCII; with those, Pillow draws with the best font of the system.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from litevlm_ros.types import RgbImage

Colour = tuple[int, int, int]

_FONT_DIRECTORIES = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
_PREFERRED = (
    "NotoSansCJK-Regular", "NotoSansCJKkr-Regular", "NotoSansKR-Regular", "NanumGothic", "UnDotum", "wqy-microhei",
    "wqy-zenhei", "DroidSansFallbackFull", "DroidSansFallback", "NotoSans-Regular", "DejaVuSans",
)  # fmt: skip
"""Names of font files without their suffixes, those with Hangul first."""


def draw_text(canvas: RgbImage, text: str, x: int, y: int, colour: Colour, size: int) -> None:
    """Draws one line of text onto `canvas`, in place.

    `x` is the left end of the line and `y` its base line, both in pixels. `size` is the font size in pixels.
    """
    if not text:
        return
    if _opencv_font() is not None:
        cv2.putText(canvas, text, (x, y), colour, _opencv_font(), size)
        return
    from PIL import Image, ImageDraw

    # Only the part around the text is converted.
    top, bottom = max(0, y - 2 * size), min(len(canvas), y + size)
    if top >= bottom:
        return
    band = Image.fromarray(canvas[top:bottom])
    ImageDraw.Draw(band).text((x, y - top), text, colour, _pillow_font(size), anchor="ls")
    canvas[top:bottom] = np.asarray(band)


def text_width(text: str, size: int) -> int:
    """Returns the width in pixels of a line that draw_text() draws."""
    if not text:
        return 0
    if _opencv_font() is not None:
        left, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _opencv_font(), size)
        return int(left + width)
    return int(_pillow_font(size).getlength(text))


def wrap(text: str, width: int, size: int) -> list[str]:
    """Breaks a text into lines of at most `width` pixels. Words that are wider are broken too."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        while text_width(word, size) > width:
            fits = max(1, _fitting(word, width, size))
            lines += [line, word[:fits]] if line else [word[:fits]]
            line, word = "", word[fits:]
        if line and text_width(f"{line} {word}", size) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line] if line or not lines else lines


def _fitting(text: str, width: int, size: int) -> int:
    """Returns the number of first characters of `text` that fit into `width` pixels."""
    return bisect.bisect_right(range(1, len(text)), width, key=lambda end: text_width(text[:end], size))


@functools.cache
def _opencv_font() -> Any:
    return cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None


@functools.cache
def _pillow_font(size: int) -> Any:
    from PIL import ImageFont

    for file in _font_files():
        try:
            return ImageFont.truetype(str(file), size)
        except OSError:
            continue  # damaged, or of a kind that FreeType does not know
    return ImageFont.load_default()


@functools.cache
def _found_fonts() -> dict[str, Path]:
    files = (
        file for directory in _FONT_DIRECTORIES for file in sorted(Path(directory).expanduser().rglob("*.[ot]t[fc]"))
    )
    return {file.stem: file for file in files}


def _font_files() -> Iterator[Path]:
    found = _found_fonts()
    for name in _PREFERRED:
        if name in found:
            yield found[name]
    yield from found.values()
