from __future__ import annotations

import pytest

pytest.importorskip("rosbags", reason="needs rosbags")

from litevlm_ros.bags.captioning import camera_name


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("/front/image_raw", "front"),
        ("/a/b/image_raw/compressed", "a/b"),
        ("/image", "image"),
        ("/compressed", "compressed"),
    ],
)
def test_cameras_are_called_after_their_topics(topic: str, name: str) -> None:
    assert camera_name(topic) == name
