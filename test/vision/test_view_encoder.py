from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scripted_backend import ScriptedVision, Sights

from litevlm_ros.errors import ImageError
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.types import View
from litevlm_ros.vision.view_encoder import ViewEncoder, VisibleViews

MODEL = ModelConfig(
    vision=VisionConfig(32, 64, 2, 2, image_size=56, patch_size=14),
    text=TextConfig(48, 80, 3, 6, 2, 8, 1e-6, 1e6, 320, False, 512),
    template="internvl2_5", use_thumbnail=True, max_dynamic_tiles=6,
)  # fmt: skip


def encoder(frames: int = 8, max_tiles: int = 1) -> tuple[ViewEncoder, ScriptedVision]:
    vision = ScriptedVision(4)
    return ViewEncoder(vision, MODEL, max_tiles, frames), vision


def view(shade: int, frame: int | None = None, camera: str = "front", width: int = 60) -> View:
    return View(camera, np.full((40, width, 3), shade, np.uint8), frame)


def rows(seen: VisibleViews) -> tuple[str, ...]:
    assert isinstance(seen.visual, Sights)
    return seen.visual.rows


def fresh(*views: View, **settings: Any) -> tuple[str, ...]:
    return rows(encoder(**settings)[0].encode(views))


def test_a_frame_is_encoded_once() -> None:
    views, vision = encoder()
    first = views.encode([view(1, 10)])
    again = views.encode([view(1, 10)])
    assert vision.tiles == 1
    assert rows(again) == rows(first) == fresh(view(1))
    assert (first.reused, again.reused) == (0, 1)
    assert first.preprocess_ms > 0
    assert again.preprocess_ms == 0
    assert first.frames == again.frames


def test_new_views_are_encoded_together_and_put_in_their_places() -> None:
    views, vision = encoder(max_tiles=6)
    wide = view(3, 12, "back", width=300)
    views.encode([view(1, 10), wide])
    tiles = vision.tiles
    seen = views.encode([view(4, 13, "left"), wide, view(5, 14, "right", width=200), view(1, 10)])
    assert rows(seen) == fresh(
        view(4, camera="left"), wide, view(5, camera="right", width=200), view(1), max_tiles=6, frames=0
    )
    assert seen.reused == 2
    assert seen.rows == tuple(4 * count for count in (7, 7, 6, 7))
    assert vision.runs == 2
    assert vision.tiles == tiles + 7 + 6


def test_views_without_a_name_are_encoded_anew() -> None:
    views, vision = encoder()
    for _ in range(2):
        assert views.encode([view(1)]).reused == 0
    assert vision.tiles == 2


def test_a_malformed_image_names_its_camera_and_leaves_the_others_to_be_kept_later() -> None:
    views, _ = encoder()
    broken = View("back", np.zeros((4, 4, 3)), 11)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"^back: the image is float64"):
        views.encode([view(1, 10), broken])
    assert views.encode([view(1, 10)]).reused == 0
