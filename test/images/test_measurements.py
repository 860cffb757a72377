from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from pictures import jpeg, png

from litevlm_ros.errors import ImageFault, MalformedImageError
from litevlm_ros.images.compressed import check_compressed, decode_compressed
from litevlm_ros.images.decoding import check_raw, decode_raw

DEPTH_PNG = cv2.imencode(".png", np.full((64, 80), 1500, np.uint16))[1].tobytes()
DEPTH_HEADER = struct.pack("<iff", 0, 100.0, 0.0)


@pytest.mark.parametrize("encoding", ["16UC1", "16SC1", "32FC1", "64FC1", "32SC1", "32FC", "16uc1"])
def test_depth_is_refused_by_its_encoding(encoding):
    for call in (decode_raw, check_raw):
        with pytest.raises(
            MalformedImageError, match="is that of a depth image: distances, which a model would"
        ) as refused:
            call(encoding, 4, 4, 32, bytes(128))
        assert refused.value.fault is ImageFault.NOT_A_PICTURE


@pytest.mark.parametrize("encoding", ["32FC3", "32FC2", "8SC1", "8UC2", "16UC4", "32SC4"])
def test_other_numbers_are_no_picture(encoding):
    with pytest.raises(MalformedImageError, match=f"'{encoding}' holds numbers that nothing says how to show"):
        decode_raw(encoding, 4, 4, 64, bytes(256))


@pytest.mark.parametrize(
    ("image_format", "data"),
    [
        ("16UC1; compressedDepth png", DEPTH_HEADER + DEPTH_PNG),
        ("32FC1; compressedDepth rvl", DEPTH_HEADER + bytes(100)),
        ("32FC1; CompressedDepth", DEPTH_HEADER + DEPTH_PNG),
        ("16UC1; png compressed ", DEPTH_PNG),
        ("16UC1;png compressed", DEPTH_PNG),
        ("32FC1; tiff compressed ", b"II*\0"),
        ("16UC1", DEPTH_PNG),
        ("", DEPTH_HEADER + DEPTH_PNG),
        ("png", DEPTH_HEADER + DEPTH_PNG),
    ],
)
def test_compressed_depth_is_refused_by_format_and_header(image_format, data):
    for call in (decode_compressed, check_compressed):
        with pytest.raises(MalformedImageError, match="depth image") as refused:
            call(image_format, data)
        assert refused.value.fault is ImageFault.NOT_A_PICTURE


@pytest.mark.parametrize(
    "image_format", ["rgb8; jpeg compressed bgr8", "mono16; png compressed ", "8UC3; jpeg compressed", ""]
)
def test_pictures_are_told_apart_from_depth(image_format):
    assert decode_compressed(image_format, jpeg()).shape == (64, 80, 3)


@pytest.mark.parametrize("data", [jpeg(), png()])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8", "jpeg", ""])
def test_compressed_bytes_in_a_raw_image_are_named_with_the_fix(encoding, data):
    with pytest.raises(
        MalformedImageError, match=r"its data are a (JPEG|PNG), .*CompressedImage, and set transport"
    ) as refused:
        decode_raw(encoding, 1280, 720, 3840, data)
    assert refused.value.fault is ImageFault.MIXED_UP


@pytest.mark.parametrize("encoding", ["jpeg", "JPG", "mjpeg", "png", "h264"])
def test_an_encoding_that_names_a_compression_is_told_the_fix(encoding):
    with pytest.raises(MalformedImageError, match=f"'{encoding}' is that of compressed data.*transport: compressed"):
        decode_raw(encoding, 4, 4, 12, bytes(48))


def test_raw_pixels_that_happen_to_begin_as_a_jpeg_are_pixels():
    data = b"\xff\xd8\xff" + bytes(45)
    assert decode_raw("rgb8", 4, 4, 12, data)[0, 0].tolist() == [255, 216, 255]


def test_raw_pixels_in_a_compressed_image_are_named_with_the_fix():
    with pytest.raises(MalformedImageError, match="raw pixels; publish these as sensor_msgs/Image") as refused:
        decode_compressed("rgb8", bytes(48))
    assert refused.value.fault is ImageFault.MIXED_UP


@pytest.mark.parametrize(
    "extension", [".webp", ".bmp", ".tiff", ".gif", ".jp2", ".ppm", ".pgm", ".pfm", ".hdr", ".avif", ".ras"]
)
def test_what_opencv_could_also_read_never_reaches_it(extension, monkeypatch):
    pixels = np.ones((64, 64, 3), np.float32 if extension in (".pfm", ".hdr") else np.uint8)
    pixels = pixels[..., 0] if extension == ".pgm" else pixels
    try:
        data = cv2.imencode(extension, pixels)[1].tobytes()
    except cv2.error:
        pytest.skip(f"OpenCV here writes no {extension}")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(MalformedImageError, match=r"it is a file of the format .*; only JPEG and PNG are read"):
        decode_compressed("jpeg", data)
