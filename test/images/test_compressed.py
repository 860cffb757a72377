from __future__ import annotations

import array
import contextlib
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litevlm_ros.errors import ImageError
from litevlm_ros.images.compressed import decode_compressed


def encode(extension: str, size: tuple[int, int] = (32, 48)) -> bytes:
    y, x = np.mgrid[: size[0], : size[1]]
    bgr = np.stack([np.full(size, 30), 2 * x, 4 * y], axis=-1).clip(0, 255).astype(np.uint8)
    return cv2.imencode(extension, bgr)[1].tobytes()


@pytest.mark.parametrize("image_format", ["jpeg", "rgb8; jpeg compressed bgr8", "", "png"])
@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_images_are_told_apart_by_their_bytes(extension, image_format):
    image = decode_compressed(image_format, array.array("B", encode(extension)))
    assert image.shape == (32, 48, 3)
    assert np.abs(image[..., 2].astype(int) - 30).max() <= 12  # blue stays blue
    assert np.abs(image[16, 24].astype(int) - [64, 48, 30]).max() <= 12


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_a_grey_compressed_image_becomes_rgb(extension):
    grey = np.full((10, 12), 90, np.uint8)
    image = decode_compressed("", cv2.imencode(extension, grey)[1].tobytes())
    assert image.shape == (10, 12, 3)
    assert np.abs(image.astype(int) - 90).max() <= 1


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("keep", [0.01, 0.1, 0.3, 0.5, 0.9, 0.99])
def test_truncated_data_is_refused(extension, keep):
    data = encode(extension, (64, 64))
    with pytest.raises(ImageError, match=r"truncated|neither"):
        decode_compressed("jpeg", data[: int(len(data) * keep)])


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    started = time.thread_time()
    with pytest.raises(ImageError, match="60000x60000, more than the allowed"):
        decode_compressed("png", bomb)
    assert time.thread_time() - started < 0.1

    jpeg = bytearray(encode(".jpg"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    with pytest.raises(ImageError, match="65000x65000, more than the allowed"):
        decode_compressed("jpeg", bytes(jpeg))


@pytest.mark.parametrize(
    ("image_format", "data", "reason"),
    [
        ("jpeg", b"", "holds no data"),
        ("jpeg", b"hello, world", "neither a JPEG nor a PNG"),
        ("16UC1; compressedDepth png", b"\x89PNG", "depth image"),
        ("jpeg", b"\xff\xd8\xff\xe0\x00\x00", "damaged at byte 2"),
        ("jpeg", b"\xff\xd8\xff\xda\x00\x02\xff\xd9", "no frame header"),
    ],
)
def test_other_data_is_refused_with_the_reason(image_format, data, reason):
    with pytest.raises(ImageError, match=reason):
        decode_compressed(image_format, data)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([".jpg", ".png"]), st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_a_damaged_compressed_image_never_raises_anything_else(extension, position, junk):
    data = bytearray(encode(extension, (16, 16)))
    position %= len(data)
    data[position : position + len(junk)] = junk
    with contextlib.suppress(ImageError):
        assert decode_compressed("", bytes(data)).dtype == np.uint8
