from __future__ import annotations

from typing import Any

import numpy as np

from litevlm_ros.types import View
from litevlm_ros.vision.frame_store import FrameStore


class Tokens:
    """Stands for visual tokens, which a store never looks into."""


def view(frame: Any, camera: str = "front") -> View:
    return View(camera, np.zeros((2, 2, 3), np.uint8), frame)


def test_frames_are_found_by_camera_and_name() -> None:
    store = FrameStore(4)
    tokens: Any = Tokens()
    store.keep(view(7), tokens)
    assert store.find(view(7)) is tokens
    assert store.find(view(8)) is None
    assert store.find(view(7, "back")) is None


def test_what_has_no_name_is_neither_kept_nor_found() -> None:
    store = FrameStore(4)
    tokens: Any = Tokens()
    store.keep(view(None), tokens)
    assert store.find(view(None)) is None
    assert store.name(view(None)) != store.name(view(None))
    assert store.name(view(3)) == store.name(view(3)) != store.name(view(3, "back"))


def test_the_frame_used_longest_ago_is_dropped() -> None:
    store = FrameStore(2)
    for frame in (1, 2):
        tokens: Any = Tokens()
        store.keep(view(frame), tokens)
    store.find(view(1))
    tokens = Tokens()
    store.keep(view(3), tokens)
    assert [frame for frame in (1, 2, 3) if store.find(view(frame))] == [1, 3]


def test_a_store_of_none_keeps_nothing() -> None:
    store = FrameStore(0)
    tokens: Any = Tokens()
    store.keep(view(1), tokens)
    assert store.find(view(1)) is None
