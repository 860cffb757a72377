from __future__ import annotations

import pytest

from litevlm_ros.bags.image_topics import camera_name, one_for_each_camera, raw_topic


@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("/front/image_raw", "front"),
        ("/a/b/image_raw/compressed", "a/b"),
        ("/a/depth/image_raw/compressedDepth", "a/depth"),
        ("/image", "image"),
        ("/compressed", "compressed"),
    ],
)
def test_cameras_are_called_after_their_topics(topic: str, name: str) -> None:
    assert camera_name(topic) == name


def test_the_raw_topic_of_each_form() -> None:
    assert raw_topic("/front/image_raw/compressed") == raw_topic("/front/image_raw") == "/front/image_raw"
    assert raw_topic("/front/compressed_view") == "/front/compressed_view"


@pytest.mark.parametrize(
    ("counts", "chosen"),
    [
        ({"/a": 3, "/a/compressed": 3}, ["/a"]),
        ({"/a/compressed": 3, "/a": 3}, ["/a"]),
        ({"/a": 2, "/a/compressed": 3}, ["/a/compressed"]),
        ({"/a": 0, "/a/compressed": 3, "/b/compressed": 1}, ["/a/compressed", "/b/compressed"]),
        ({"/a/compressedDepth": 9, "/a/compressed": 3}, ["/a/compressed"]),
        ({"/a/compressedDepth": 9, "/a": 3}, ["/a"]),
        ({"/a/image_raw": 3, "/a/image_rect": 3}, ["/a/image_raw", "/a/image_rect"]),
        ({"/a": 0}, []),
    ],
)
def test_one_topic_of_those_that_show_the_same(counts: dict[str, int], chosen: list[str]) -> None:
    assert one_for_each_camera(counts) == chosen
