from __future__ import annotations

import numpy as np
import pytest

from litevlm_ros.lab.demo.panel import Answered, Captioned, draw


def tile(
    camera: str, colour: tuple[int, int, int], size: tuple[int, int] = (480, 640), caption: str = "A bus."
) -> Captioned:
    return Captioned(camera, np.full((*size, 3), colour, np.uint8), caption, "12 ms")


def area(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == colour).all(axis=-1).sum())


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_every_frame_is_in_the_picture(count):
    colours = [(250, 10 * number, 5) for number in range(count)]
    picture = draw("demo", [tile(f"camera{number}", colour) for number, colour in enumerate(colours)], [])
    for colour in colours:
        assert area(picture, colour) == 400 * 300


def test_odd_shapes_and_long_texts_grow_the_picture():
    short = draw("demo", [tile("front", (9, 9, 9))], [])
    long = draw("demo", [tile("front", (9, 9, 9), caption="many words " * 60)], [])
    assert long.shape[0] > short.shape[0] + 200
    for size in [(2000, 10), (10, 2000), (1, 1)]:
        draw("demo", [tile("front", (9, 9, 9), size)], [])


def test_right_and_wrong_answers_look_different():
    def picture(truth: str | None, right: bool) -> np.ndarray:
        return draw("demo", [tile("front", (9, 9, 9))], [Answered("How many?", "two", truth, right, "9 ms")])

    right, wrong, unknown = picture("two", True), picture("two", False), picture(None, False)
    assert (right != wrong).any()
    assert unknown.shape[1] == right.shape[1] > draw("demo", [tile("front", (9, 9, 9))], []).shape[1]


def test_without_any_frame_there_is_still_a_picture():
    assert draw("demo", [], []).shape[2] == 3
