from __future__ import annotations

import cv2
import numpy as np
import pytest

from litevlm_ros.errors import ImageError
from litevlm_ros.images.header import ImageHeader, read_header


def encoded(extension: str, width: int, height: int, *options: int) -> bytes:
    return cv2.imencode(extension, np.zeros((height, width, 3), np.uint8), options)[1].tobytes()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 3), (1280, 720)])
def test_size_of_jpeg_progressive_jpeg_and_png(width, height):
    progressive = encoded(".jpg", width, height, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert read_header(encoded(".jpg", width, height)) == ImageHeader("JPEG", width, height)
    assert read_header(progressive) == ImageHeader("JPEG", width, height)
    assert read_header(encoded(".png", width, height)) == ImageHeader("PNG", width, height)


def test_the_thumbnail_of_a_camera_does_not_hide_a_truncation():
    jpeg = encoded(".jpg", 64, 48)
    thumbnail = encoded(".jpg", 8, 6)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    photo = jpeg[:2] + segment + jpeg[2:]
    assert read_header(photo) == ImageHeader("JPEG", 64, 48)
    with pytest.raises(ImageError, match="truncated"):
        read_header(photo[:-2])


def test_fill_bytes_before_a_marker_are_allowed():
    jpeg = encoded(".jpg", 5, 4)
    assert read_header(jpeg[:2] + b"\xff\xff" + jpeg[2:]) == ImageHeader("JPEG", 5, 4)
