from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from pictures import END, frame, jpeg, progressive, restarting, scene, with_frame
from PIL import Image

from litevlm_ros.errors import ImageFault, MalformedImageError
from litevlm_ros.images import jpeg_decoder
from litevlm_ros.images.compressed import decode_compressed


@pytest.fixture(params=["simplejpeg", "opencv"], autouse=True)
def decoder(request, monkeypatch) -> str:
    """Each test runs with simplejpeg, and as where it is not installed."""
    if request.param == "opencv":
        monkeypatch.setattr(jpeg_decoder, "simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")
    return request.param


def opencv(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def encoded(**options) -> bytes:
    buffer = io.BytesIO()
    mode = options.pop("mode", "RGB")
    Image.fromarray(scene()).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


GOOD = {
    "baseline": jpeg(),
    "progressive": progressive(),
    "restarting": restarting(),
    "grey": encoded(mode="L"),
    "CMYK": encoded(mode="CMYK"),
    "4:4:4": encoded(subsampling=0),
    "4:2:2": encoded(subsampling=1),
    "optimized": encoded(optimize=True),
    "RGB": encoded(keep_rgb=True),
    **{name: jpeg(80, 64, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}"))
       for name in ("411", "440")},
}  # fmt: skip


@pytest.mark.parametrize("kind", list(GOOD))
def test_every_kind_has_the_pixels_that_opencv_reads(kind):
    np.testing.assert_array_equal(decode_compressed("jpeg", GOOD[kind]), opencv(GOOD[kind]))


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("kind", list(GOOD))
def test_a_jpeg_that_ends_early_is_damaged_even_with_an_end_marker(kind, keep, decoder):
    if decoder == "opencv" and keep > 0.95:
        pytest.skip("so little is missing that the last pixel has its brightness")
    data = GOOD[kind]
    start = data.index(b"\xff\xda") + 14
    cut = data[: start + int(keep * (len(data) - start))].rstrip(b"\xff") + END
    with pytest.raises(MalformedImageError) as refused:
        decode_compressed("jpeg", cut)
    assert refused.value.fault in (ImageFault.DAMAGED, ImageFault.SHORT_DATA)


def test_a_jpeg_that_lacks_its_middle_is_damaged():
    data = jpeg(320, 240)
    start = data.index(b"\xff\xda") + 14
    third = (len(data) - start) // 3
    with pytest.raises(MalformedImageError, match="could not be decoded"):
        decode_compressed("jpeg", data[: start + third] + data[start + 2 * third :])


@pytest.mark.parametrize("level", [127, 128, 129])
def test_a_grey_picture_is_whole(level):
    data = cv2.imencode(".jpg", np.full((64, 80, 3), level, np.uint8))[1].tobytes()
    np.testing.assert_array_equal(decode_compressed("jpeg", data), opencv(data))


@pytest.mark.parametrize("padding", [b"\0", b"\0" * 4, b"\1\2\3\4\5\6\7", b"\0" * 700, b"\xff\x00" * 4])
def test_bytes_that_a_camera_puts_before_the_end_are_ignored(padding):
    data = jpeg()
    np.testing.assert_array_equal(decode_compressed("jpeg", data[:-2] + padding + END), opencv(data))


@pytest.mark.parametrize("count", [1, 8])
def test_bytes_that_a_webcam_puts_before_restart_markers_are_ignored(count):
    data = restarting()
    at = data.index(b"\xff\xd2")
    np.testing.assert_array_equal(decode_compressed("jpeg", data[:at] + bytes(count) + data[at:]), opencv(data))


def test_a_jpeg_without_huffman_tables_is_read_as_webcams_send_it():
    data = jpeg()
    bare = data
    while (at := bare.find(b"\xff\xc4")) >= 0:
        bare = bare[:at] + bare[at + 2 + int.from_bytes(bare[at + 2 : at + 4], "big") :]
    np.testing.assert_array_equal(decode_compressed("jpeg", bare), opencv(data))


def test_restart_markers_that_are_missing_are_damage(decoder):
    if decoder == "opencv":
        pytest.skip("OpenCV keeps this warning of libjpeg for itself")
    data = restarting()
    first, last = data.index(b"\xff\xd1"), data.index(b"\xff\xd4")
    with pytest.raises(MalformedImageError, match="could not be decoded"):
        decode_compressed("jpeg", data[:first] + data[last:])


def test_a_chroma_layout_that_turbojpeg_does_not_know_is_decoded_by_opencv():
    data = with_frame(encoded(subsampling=0), frame(80, 64, sampling=(0x11, 0x12, 0x12)))
    np.testing.assert_array_equal(decode_compressed("jpeg", data), opencv(data))
