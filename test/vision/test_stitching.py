from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont
from raw_images import noisy_image

from litevlm_ros.errors import ImageError
from litevlm_ros.images.decoding import as_rgb
from litevlm_ros.types import View
from litevlm_ros.vision import stitching
from litevlm_ros.vision.stitching import Stitcher, arrange, frame_key, grid, names, pictures, write_name
from litevlm_ros.vision.tiling import choose_grid, make_tiles

SIX = ("front_left", "front", "front_right", "back_left", "back", "back_right")
DEMO = ("front", "front_left", "front_right", "back", "back_left", "back_right")
NUSCENES = ("CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT", "CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT")


def picture(seed: int, width: int = 160, height: int = 90) -> npt.NDArray[np.uint8]:
    rows, columns = np.indices((height, width))
    waves = [127 + 127 * np.sin((rows * (seed + 1) + columns * (channel + 2)) / 25) for channel in range(3)]
    return np.stack(waves, -1).astype(np.uint8)


def views(*cameras: str, **settings: Any) -> list[View]:
    return [View(camera, picture(seed, **settings), seed) for seed, camera in enumerate(cameras)]


def published(seen: list[View], height: int, font: str) -> npt.NDArray[np.uint8]:
    """Six cameras as InternVL's tool stitches them, in the order of `SIX`."""
    whole = Image.new("RGB", (6 * height, 2 * height))
    for number, view in enumerate(seen):
        cell = Image.fromarray(as_rgb(view.image)).resize((2 * height, height), Image.Resampling.BICUBIC)
        name = f"CAM_{view.camera.upper()}"
        ImageDraw.Draw(cell).text((0, 0), name, fill=(255, 0, 255), font=ImageFont.truetype(font, 50 * height // 448))
        whole.paste(cell, (number % 3 * 2 * height, number // 3 * height))
    return np.asarray(whole)


@pytest.mark.skipif(stitching._font(50) is None, reason="needs the font DejaVu Sans Bold")
def test_six_cameras_are_stitched_as_the_driving_model_was_trained() -> None:
    # Enlarged rows and columns have the same pixels in whatever order Pillow takes them.
    seen = views(*SIX, width=640, height=448)
    whole = Stitcher(448).view(tuple(seen))
    assert whole.image.shape == (896, 2688, 3)  # type: ignore[union-attr]
    np.testing.assert_array_equal(as_rgb(whole.image), published(seen, 448, "DejaVuSans-Bold.ttf"))


def test_six_cameras_are_twelve_tiles() -> None:
    assert choose_grid(2688, 896, 12, 448) == (6, 2)
    whole = Stitcher(28).view(tuple(views(*SIX)))
    assert len(make_tiles(as_rgb(whole.image), 12, 28, use_thumbnail=True)) == 12 + 1


def test_a_stitched_view_names_all_cameras_and_frames() -> None:
    seen = tuple(views("front", "back"))
    whole = Stitcher(56).view(seen)
    assert whole.camera == names(seen) == "front, back"
    assert whole.frame == frame_key(seen) == (("front", 0), ("back", 1))
    unnamed = (seen[0], View("back", picture(1)))
    assert frame_key(unnamed) is None
    assert Stitcher(56).view(unnamed).frame is None


@pytest.mark.parametrize("cameras", [DEMO, SIX[::-1], NUSCENES])
def test_cameras_stand_where_they_look(cameras: tuple[str, ...]) -> None:
    arranged = [view.camera.lower().removeprefix("cam_") for view in arrange(views(*cameras))]
    assert arranged == list(SIX)


def test_other_cameras_follow_in_their_order() -> None:
    cameras = ("zoom", "right", "front", "arm", "left", "rear")
    assert [view.camera for view in arrange(views(*cameras))] == ["front", "left", "right", "rear", "zoom", "arm"]


@pytest.mark.parametrize(
    ("count", "cells"), [(1, (1, 1)), (2, (2, 1)), (3, (3, 1)), (4, (2, 2)), (5, (3, 2)), (6, (3, 2)), (8, (3, 3))]
)
def test_the_grid_has_a_cell_for_each_camera(count: int, cells: tuple[int, int]) -> None:
    assert grid(count) == cells
    seen = tuple(views(*(f"camera_{number}" for number in range(count)), width=32, height=32))
    image = as_rgb(Stitcher(16).view(seen).image)
    if count > 1:
        assert image.shape == (16 * cells[1], 32 * cells[0], 3)
    shown = image.reshape(cells[1], -1, cells[0], image.shape[1] // cells[0], 3).any((1, 3, 4)).ravel()
    assert shown.tolist() == [True] * count + [False] * (cells[0] * cells[1] - count), "empty cells are black"


def test_one_view_stays_as_it_is() -> None:
    [view] = views("front")
    assert Stitcher(56).view((view,)) is view


def test_views_are_shown_one_by_one_or_together() -> None:
    seen = views("back", "front")
    assert pictures(seen, stitch=False) == [(seen[0],), (seen[1],)]
    assert pictures(seen, stitch=True) == [(seen[1], seen[0])]
    assert pictures([], stitch=True) == pictures([], stitch=False) == []


def test_raw_images_are_stitched_too() -> None:
    raw = noisy_image("yuv422_yuy2", 40, 20)
    [front] = views("front")
    ours, theirs = (as_rgb(Stitcher(28).view((front, View("back", image))).image) for image in (raw, as_rgb(raw)))
    np.testing.assert_array_equal(ours, theirs)


def test_a_malformed_image_names_its_camera() -> None:
    broken = View("back", np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"^back: the image is float64"):
        Stitcher(56).view((*views("front"), broken))


@pytest.mark.parametrize("with_font", [True, False])
def test_names_are_written_whatever_they_are(monkeypatch: pytest.MonkeyPatch, with_font: bool) -> None:
    if not with_font:
        monkeypatch.setattr(stitching, "_font", lambda size: None)
    cell = np.zeros((56, 112, 3), np.uint8)
    for camera in ("front", "CAM_FRONT", "앞", "a\nb", "x" * 100_000, ""):
        named = write_name(cell, camera)
        assert named.shape == cell.shape
        assert named[:10].any()
        assert not named[20:].any()
    assert not cell.any()
    np.testing.assert_array_equal(write_name(cell, "front"), write_name(cell, "cam_front"))
