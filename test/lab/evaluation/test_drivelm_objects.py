from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.lab.evaluation.drivelm_objects import PICTURE_SIZE, STITCHED_FORM, StitchedObjects, Wording
from litevlm_ros.lab.evaluation.drivelm_scores import NEAR_PIXELS, points
from litevlm_ros.types import View
from litevlm_ros.vision.stitching import Stitcher, pictures

NUSCENES = ("front", "front_right", "front_left", "back", "back_left", "back_right")


def views(*cameras: str) -> list[View]:
    return [View(camera, np.zeros((9, 16, 3), np.uint8)) for camera in cameras]


SIX = StitchedObjects(views(*NUSCENES))


@pytest.mark.parametrize(
    ("pixels", "thousandths"),
    [  # worked out by hand: the cells are a third of 1000 wide and a half of it high
        ("<c1,CAM_FRONT_LEFT,0.0,0.0>", "<c1,CAM_FRONT_LEFT,[0, 0]>"),
        ("<c1,CAM_FRONT,800.0,450.0>", "<c1,CAM_FRONT,[500, 250]>"),
        ("<c2,CAM_BACK_LEFT,480.0,90.0>", "<c2,CAM_BACK_LEFT,[100, 550]>"),
        ("<c3,CAM_BACK,1088.3,497.5>", "<c3,CAM_BACK,[560, 776]>"),
        ("<c14,CAM_BACK_RIGHT,1600.0,900.0>", "<c14,CAM_BACK_RIGHT,[1000, 1000]>"),
    ],
)
def test_six_cameras_have_the_cells_of_the_published_model(pixels: str, thousandths: str) -> None:
    assert SIX.to_thousandths(f"Is {pixels} near?") == f"Is {thousandths} near?"
    [(x, y)], [(back_x, back_y)] = points(pixels), points(SIX.to_pixels(thousandths))
    assert abs(x - back_x) + abs(y - back_y) < 3.5


def test_all_objects_of_a_text_are_converted_each_by_its_camera() -> None:
    text = "First <c1,CAM_FRONT,0.0,900.0>, then <c2, CAM_BACK, 1600, 0> and <c1,CAM_FRONT,0.0,900.0>."
    told = "First <c1,CAM_FRONT,[333, 500]>, then <c2,CAM_BACK,[667, 500]> and <c1,CAM_FRONT,[333, 500]>."
    assert SIX.to_thousandths(text) == told
    assert SIX.to_pixels(told) == (
        "First <c1,CAM_FRONT,0.0,900.0>, then <c2,CAM_BACK,1600.0,0.0> and <c1,CAM_FRONT,0.0,900.0>."
    )


@pytest.mark.parametrize("count", range(1, 7))
def test_thousandths_point_at_the_object_in_the_picture_that_a_model_sees(count: int) -> None:
    for cameras in combinations(NUSCENES, count):
        for camera in cameras:
            marked = views(*cameras)
            image = as_rgb(marked[cameras.index(camera)].image)
            image[3:6, 4:7] = 255  # the middle is 5.5 of 16 and 4.5 of 9
            [picture] = pictures(marked, stitch=True)
            seen = as_rgb(Stitcher(224).view(picture).image)
            told = StitchedObjects(marked).to_thousandths(f"<c1,CAM_{camera.upper()},550.0,450.0>")
            x, y = (int(number.strip("[]> ")) / 1000 for number in told.split(",")[2:])
            assert (seen[int(y * len(seen)), int(x * seen.shape[1])] > 200).all()


@pytest.mark.parametrize("count", range(1, 7))
def test_what_was_converted_comes_back_near_enough_to_be_found(count: int) -> None:
    width, height = PICTURE_SIZE
    places = [(0.0, 0.0), (width, height), (0.3, height - 0.2), (799.9, 450.1), (1234.5, 6.7)]
    for cameras in combinations(NUSCENES, count):
        objects = StitchedObjects(views(*cameras))
        text = " ".join(f"<c1,CAM_{camera.upper()},{x:.1f},{y:.1f}>" for camera in cameras for x, y in places)
        back = objects.to_pixels(objects.to_thousandths(text))
        far = [abs(x - u) + abs(y - v) for (x, y), (u, v) in zip(points(text), points(back), strict=True)]
        assert max(far) < 3.5 < NEAR_PIXELS


@pytest.mark.parametrize(
    ("answer", "pixels"),
    [
        ("<c1,CAM_BACK,[100, 776]>", "<c1,CAM_BACK,0.0,496.8>"),
        ("<c1,CAM_BACK,[560, 20]>", "<c1,CAM_BACK,1088.0,0.0>"),
        ("<c1,CAM_FRONT,[5000,-3]>", "<c1,CAM_FRONT,1600.0,0.0>"),
        ("<c1,CAM_FRONT,[" + "9" * 400 + ", 250.0]>", "<c1,CAM_FRONT,1600.0,450.0>"),
    ],
)
def test_a_point_outside_its_camera_s_cell_goes_to_the_border(answer: str, pixels: str) -> None:
    assert SIX.to_pixels(answer) == pixels


def test_pixels_outside_the_picture_stay_in_their_cell() -> None:
    assert SIX.to_thousandths("<c1,CAM_FRONT,1700.0,-5.0>") == "<c1,CAM_FRONT,[667, 0]>"


@pytest.mark.parametrize(
    "text",
    [
        "No.",
        "<c1,CAM_BACK,[560]>",
        "<c1,CAM_BACK,[560, 776, 3]>",
        "<c1,CAM_BACK,[5 6, 776]>",
        "<c1,CAM_BACK,[nan, inf]>",
        "<c1,CAM_BACK,[1e3, 776]>",
        "<c1,CAM_BACK,[560, 776>",
        "<c1,CAM_ROOF,[560, 776]>",
        "<c1,[560, 776]>",
        "<box>[[10, 20, 30, 40]]</box>",
        "<c,CAM,[cx,cy]>",
        "<c1,CAM_BACK,1088.3>",
        "<c1,CAM_BACK,1088.3,497.5,1.0>",
        "<c1,CAM_ROOF,1088.3,497.5>",
        "<c1,CAM_BACK,[560, 776]" * 3,
    ],
)
def test_whatever_is_no_object_of_the_picture_is_left_as_it_is(text: str) -> None:
    assert SIX.to_pixels(text) == SIX.to_thousandths(text) == text


def test_pixels_in_an_answer_and_thousandths_in_a_question_are_left_as_they_are() -> None:
    assert SIX.to_pixels("<c1,CAM_BACK,1088.3,497.5>") == "<c1,CAM_BACK,1088.3,497.5>"
    assert SIX.to_thousandths("<c1,CAM_BACK,[560, 776]>") == "<c1,CAM_BACK,[560, 776]>"


def test_a_camera_that_was_not_kept_has_no_place_in_the_picture() -> None:
    objects = StitchedObjects(views("back", "front"))
    text = "<c1,CAM_BACK,800.0,450.0> <c2,CAM_FRONT,800.0,450.0> <c3,CAM_FRONT_LEFT,800.0,450.0>"
    told = "<c1,CAM_BACK,[750, 500]> <c2,CAM_FRONT,[250, 500]> <c3,CAM_FRONT_LEFT,800.0,450.0>"
    assert objects.to_thousandths(text) == told
    assert objects.to_pixels(told) == text
    assert objects.to_pixels("<c3,CAM_FRONT_LEFT,[100, 100]>") == "<c3,CAM_FRONT_LEFT,[100, 100]>"


def test_the_wording_of_a_model() -> None:
    text, seen = "Is <c1,CAM_BACK,800.0,450.0> near?", views("back")
    told = "Is <c1,CAM_BACK,[500, 500]> near?"
    assert Wording().question(text, seen) == Wording().answer(text, seen) == text
    assert Wording(hint="Be brief.").question(text, seen) == f"{text} Be brief."
    assert Wording(hint="Be brief.").answer(told, seen) == told
    assert Wording(STITCHED_FORM, "[1, 2]").question(text, seen) == f"{told} [1, 2]"
    assert Wording(STITCHED_FORM, "[1, 2]").answer(told, seen) == text
