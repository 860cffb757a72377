from __future__ import annotations

import hashlib

import numpy as np
import pytest

from litevlm_ros.images import text_drawing
from litevlm_ros.images.text_drawing import draw_text, text_width, wrap
from litevlm_ros.types import RgbImage

KOREAN = "보행자 두 명"


@pytest.fixture(params=["OpenCV", "Pillow"])
def font(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that draws."""
    if request.param == "Pillow":
        monkeypatch.setattr(text_drawing, "_opencv_font", lambda: None)
    elif text_drawing._opencv_font() is None:
        pytest.skip("OpenCV has no fonts before version 5")
    return request.param


def drawn(text: str, size: int = 20) -> RgbImage:
    canvas = np.zeros((60, 400, 3), np.uint8)
    draw_text(canvas, text, 10, 40, (255, 128, 0), size)
    return canvas


def columns(image: RgbImage) -> np.ndarray:
    return np.flatnonzero(image.any(axis=(0, 2)))


def test_text_is_where_and_as_wide_as_it_says(font: str) -> None:
    image = drawn("Hxkm")
    inked = columns(image)
    assert 10 <= inked[0] <= 14
    assert abs(inked[-1] - 10 - text_width("Hxkm", 20)) <= 3
    rows = np.flatnonzero(image.any(axis=(1, 2)))
    assert 20 <= rows[0] < rows[-1] <= 41, "between the letters' height and the base line"
    brightest = image[image[..., 0] > 240]
    assert len(brightest), "the colour is the one asked for"
    assert (abs(brightest.astype(int) - (255, 128, 0)) <= 20).all()


def test_nothing_and_what_is_outside(font: str) -> None:
    assert not drawn("").any()
    assert text_width("", 20) == 0
    canvas = np.zeros((20, 20, 3), np.uint8)
    for x, y in ((-500, 10), (500, 10), (0, -200), (0, 400)):
        draw_text(canvas, "far away", x, y, (255, 255, 255), 12)
    assert not canvas[:, 15:].any() or canvas.shape == (20, 20, 3)


def test_characters_of_other_languages_are_not_all_the_same_box() -> None:
    """With a font that lacks them, every character would look like every other one."""
    if text_drawing._opencv_font() is None:
        pytest.skip("which fonts a system has is not for a test to say")
    pictures = {hashlib.sha256(drawn(character).tobytes()).digest() for character in "보행자두명é漢Ж"}
    assert len(pictures) == 8
    assert text_width(KOREAN, 20) > 60


def test_a_system_without_fonts(font: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_drawing, "_found_fonts", dict)
    text_drawing._pillow_font.cache_clear()
    assert drawn("Hello").any()
    text_drawing._pillow_font.cache_clear()


def test_lines_fit_their_width_and_keep_every_word() -> None:
    text = "A yellow truck far ahead, a red pedestrian near on the left. The light is green."
    lines = wrap(text, 150, 17)
    assert " ".join(lines) == text
    assert len(lines) > 3
    assert all(text_width(line, 17) <= 150 for line in lines)


def test_words_longer_than_a_line_are_broken() -> None:
    lines = wrap("x" * 200 + " end", 120, 17)
    assert "".join(lines) == "x" * 200 + "end" or "".join(lines).replace(" ", "") == "x" * 200 + "end"
    assert all(text_width(line, 17) <= 120 for line in lines)
    assert wrap("", 100, 17) == [""]


def test_a_language_without_blanks_is_broken_too() -> None:
    text = "보행자가오른쪽에서길을건너고있습니다"
    lines = wrap(text, 120, 17)
    assert len(lines) > 1
    assert "".join(lines) == text
