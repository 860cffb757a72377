from __future__ import annotations

import numpy as np
import pytest

from litevlm_ros.node.overlay_drawing import draw_overlay, grid
from litevlm_ros.types import RgbImage

DETAILS = "84 ms: vision 20, prefill 7, decode 18, queue 2 · 82 + 32 tokens"


def flat(width: int, height: int, value: int = 200) -> RgbImage:
    return np.full((height, width, 3), value, np.uint8)


def text_pixels(picture: RgbImage) -> int:
    """Pixels as bright as letters, on a shaded image."""
    return int((picture.min(axis=2) > 150).sum())


def test_the_caption_is_below_and_the_rest_of_the_image_is_untouched() -> None:
    image = flat(640, 480, 100)
    picture = draw_overlay(image, "front", "A yellow truck far ahead.", DETAILS, 640)
    assert picture.shape == (480, 640, 3)
    assert (image == 100).all(), "the image belongs to others"
    assert text_pixels(picture[:40]) > 100
    assert text_pixels(picture[440:]) > 100
    assert (picture[60:420] == 100).all()
    assert (picture[-2:, :3] == 35).all(), "shaded behind the text"


def test_longer_captions_take_more_lines_up_to_a_limit() -> None:
    def shaded(words: int) -> int:
        picture = draw_overlay(flat(640, 480), "front", "truck " * words, "", 640)
        return int((picture[100:, 2, 0] != 200).sum())

    assert 0 < shaded(3) < shaded(20) < shaded(130) == shaded(40_000)


@pytest.mark.parametrize("text", ["보행자 두 명이 있습니다.", "Ein Fußgänger überquert die Straße.", "🙂 x\x00\n\t"])
def test_any_text_can_be_drawn(text: str) -> None:
    assert text_pixels(draw_overlay(flat(640, 480), text[:8], text, DETAILS, 640)[430:]) > 60


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 6), (160, 120), (1920, 1080), (40, 2000), (2000, 40)])
def test_images_of_any_size_are_drawn_at_a_legible_one(width: int, height: int) -> None:
    picture = draw_overlay(flat(width, height), "front", "A truck.", DETAILS, 960)
    assert picture.shape[1] == min(960, max(160, width))
    assert picture.dtype == np.uint8


def test_an_empty_caption() -> None:
    assert draw_overlay(flat(640, 480), "front", "", "", 640).shape == (480, 640, 3)


def test_pictures_side_by_side() -> None:
    pictures = [flat(320, 240, value) for value in (10, 20, 30, 40, 50)]
    together = grid(pictures, 960)
    assert together.shape == (480, 960, 3)
    assert [together[120, 160 + 320 * column, 0] for column in range(3)] == [10, 20, 30]
    assert [together[360, 160 + 320 * column, 0] for column in range(3)] == [40, 50, 0]
    assert grid(pictures[:1], 320).shape == (240, 320, 3)


def test_other_shapes_are_letterboxed() -> None:
    together = grid([flat(320, 240, 10), flat(100, 400, 20)], 640)
    assert together.shape == (240, 640, 3)
    assert together[120, 480, 0] == 20
    assert together[120, 330, 0] == 0
