from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scripted_backend import ScriptedVision, Sights

from litevlm_ros.errors import ImageError
from litevlm_ros.model_config import ModelConfig, TextConfig, VisionConfig
from litevlm_ros.types import View
from litevlm_ros.vision.stitching import Picture, Stitcher
from litevlm_ros.vision.tiling import HostTiler
from litevlm_ros.vision.view_encoder import FrameStore, ViewEncoder, ViewTokens

MODEL = ModelConfig(
    vision=VisionConfig(32, 64, 2, 2, image_size=56, patch_size=14),
    text=TextConfig(48, 80, 3, 6, 2, 8, 1e-6, 1e6, 320, False, 512),
    template="internvl2_5", use_thumbnail=True, max_dynamic_tiles=6,
)  # fmt: skip


def encoder(frames: int = 8, max_tiles: int = 1) -> tuple[ViewEncoder, ScriptedVision]:
    vision = ScriptedVision(4)
    return ViewEncoder(HostTiler(MODEL, max_tiles), vision, MODEL.vision, frames), vision


def view(shade: int, frame: int | None = None, camera: str = "front", width: int = 60) -> View:
    return View(camera, np.full((40, width, 3), shade, np.uint8), frame)


def rows(seen: ViewTokens) -> tuple[str, ...]:
    assert isinstance(seen.visual, Sights)
    return seen.visual.rows


def alone(*views: View) -> list[Picture]:
    return [(view,) for view in views]


def fresh(*views: View, **settings: Any) -> tuple[str, ...]:
    return rows(encoder(**settings)[0].encode(alone(*views)))


def test_a_frame_is_encoded_once() -> None:
    views, vision = encoder()
    first = views.encode(alone(view(1, 10)))
    again = views.encode(alone(view(1, 10)))
    assert vision.tiles == 1
    assert rows(again) == rows(first) == fresh(view(1))
    assert (first.reused, again.reused) == (0, 1)
    assert first.preprocess_ms > 0
    assert again.preprocess_ms == 0
    assert first.frames == again.frames


def test_new_views_are_encoded_together_and_put_in_their_places() -> None:
    views, vision = encoder(max_tiles=6)
    wide = view(3, 12, "back", width=300)
    views.encode(alone(view(1, 10), wide))
    tiles = vision.tiles
    seen = views.encode(alone(view(4, 13, "left"), wide, view(5, 14, "right", width=200), view(1, 10)))
    assert rows(seen) == fresh(
        view(4, camera="left"), wide, view(5, camera="right", width=200), view(1), max_tiles=6, frames=0
    )
    assert seen.reused == 2
    assert seen.rows == tuple(4 * count for count in (7, 7, 6, 7))
    assert vision.runs == 2
    assert vision.tiles == tiles + 7 + 6


def test_views_share_the_tokens_before_the_first_other_picture() -> None:
    views, _ = encoder(max_tiles=6)
    wide = view(3, 12, "back", width=300)
    seen = views.encode(alone(wide, view(1, 10), view(2, 11, "left")))
    assert seen.shared(seen) == sum(seen.rows)
    assert seen.shared(views.encode(alone(wide, view(1, 10)))) == sum(seen.rows[:2])
    assert seen.shared(views.encode(alone(wide, view(4, 13), view(2, 11, "left")))) == seen.rows[0]
    assert seen.shared(views.encode(alone(view(1, 10), wide))) == 0
    unnamed = alone(view(1))
    assert views.encode(unnamed).shared(views.encode(unnamed)) == 0, "views without a frame equal no other"


def test_views_without_a_name_are_encoded_anew() -> None:
    views, vision = encoder()
    for _ in range(2):
        assert views.encode(alone(view(1))).reused == 0
    assert vision.tiles == 2


def test_a_malformed_image_names_its_camera_and_leaves_the_others_to_be_kept_later() -> None:
    views, _ = encoder()
    broken = View("back", np.zeros((4, 4, 3)), 11)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"^back: the image is float64"):
        views.encode(alone(view(1, 10), broken))
    assert views.encode(alone(view(1, 10))).reused == 0


def test_stitched_views_are_one_picture_that_is_kept_by_all_their_frames() -> None:
    views, vision = encoder(max_tiles=6)
    front, back, newer = view(1, 10), view(2, 11, "back"), view(3, 12, "back")
    seen = views.encode([(front, back)])
    stitched = Stitcher(56).view((front, back))
    assert rows(seen) == fresh(stitched, max_tiles=6)
    assert seen.rows == (4 * (4 + 1),), "four tiles of 56 pixels, and the thumbnail"
    again = views.encode([(front, back)])
    assert (again.reused, vision.runs) == (2, 1)
    assert seen.frames == again.frames
    other = views.encode([(front, newer)])
    assert (other.reused, vision.runs) == (0, 2)
    assert seen.shared(other) == 0
    assert views.encode(alone(front, back)).reused == 0, "a view alone is another picture"


def test_a_stitched_view_without_a_frame_is_encoded_anew() -> None:
    views, vision = encoder()
    for _ in range(2):
        assert views.encode([(view(1, 10), view(2, None, "back"))]).reused == 0
    assert vision.runs == 2


def test_no_pictures_are_no_tokens() -> None:
    views, vision = encoder()
    seen = views.encode([])
    assert (seen.visual.count, seen.rows, seen.frames, seen.reused, vision.runs) == (0, (), (), 0, 0)
    assert seen.shared(views.encode(alone(view(1, 10)))) == 0
    assert seen.visual.part(0, 0).count == 0


# --- the store of frames


class Tokens:
    """Stands for visual tokens, which a store never looks into."""


def test_frames_are_found_by_their_keys() -> None:
    store = FrameStore(4)
    tokens: Any = Tokens()
    store.keep(("front", 7), tokens)
    assert store.find(("front", 7)) is tokens
    assert store.find(("front", 8)) is None


def test_what_has_no_key_is_neither_kept_nor_found() -> None:
    store = FrameStore(4)
    tokens: Any = Tokens()
    store.keep(None, tokens)
    assert store.find(None) is None


def test_the_frame_used_longest_ago_is_dropped() -> None:
    store = FrameStore(2)
    for frame in (1, 2):
        tokens: Any = Tokens()
        store.keep(frame, tokens)
    store.find(1)
    tokens = Tokens()
    store.keep(3, tokens)
    assert [frame for frame in (1, 2, 3) if store.find(frame)] == [1, 3]


def test_a_store_of_none_keeps_nothing() -> None:
    store = FrameStore(0)
    tokens: Any = Tokens()
    store.keep(1, tokens)
    assert store.find(1) is None
