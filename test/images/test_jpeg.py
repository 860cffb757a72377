from __future__ import annotations

import cv2
import numpy as np
import pytest
from picture_checks import assert_refused_soon, seconds_of_a_check
from pictures import (
    END,
    START,
    after_start,
    before_frame,
    before_scan,
    exif,
    frame,
    jpeg,
    progressive,
    restarting,
    segment,
    with_frame,
)  # fmt: skip

from litevlm_ros.errors import ImageFault
from litevlm_ros.images.compressed import decode_compressed
from litevlm_ros.images.jpeg import read_jpeg_header, rewritten


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 3), (1280, 720)])
@pytest.mark.parametrize("make", [jpeg, progressive, restarting])
def test_the_size_is_read(make, width, height):
    header = read_jpeg_header(make(width, height))
    assert (header.width, header.height) == (width, height)
    assert header.least_bytes <= len(make(width, height))


@pytest.mark.parametrize("make", [jpeg, progressive, restarting])
def test_a_rewritten_jpeg_has_the_same_pixels_and_nothing_that_is_not_needed(make):
    plain = make()
    dressed = after_start(before_frame(plain, segment(0xE2, b"ICC_PROFILE")), segment(0xE1, b"Exif\0\0" + jpeg(8, 8)))
    dressed = after_start(dressed, segment(0xFE, b"a comment"))
    clean = rewritten(read_jpeg_header(dressed), dressed)
    assert clean == rewritten(read_jpeg_header(plain), plain)
    assert b"comment" not in clean
    np.testing.assert_array_equal(decode_compressed("jpeg", dressed), decode_compressed("jpeg", plain))


HARMLESS = {
    "fill bytes": after_start(jpeg(), b"\xff" * 9),
    "a megabyte of fill bytes": after_start(jpeg(), b"\xff" * 1_000_000),
    "TEM before the frame": before_frame(jpeg(), b"\xff\x01" * 3),
    "restart markers before the frame": before_frame(jpeg(), b"\xff\xd3\xff\xd7"),
    "a frame header in a thumbnail": after_start(jpeg(), segment(0xE1, frame(30_000, 30_000) + jpeg(8, 8))),
    "a JPEG behind the end": jpeg() + jpeg(8, 8),
    "bytes behind the end": jpeg() + bytes(300),
    "an unknown JFIF version": jpeg().replace(b"JFIF\0\x01", b"JFIF\0\x07"),
    "the numbers of another kind of scan": jpeg().replace(b"\x03\x11\x00\x3f\x00", b"\x03\x11\x00\x00\x01"),
    "fill bytes before the end": jpeg()[:-2] + b"\xff\xff" + END,
}


@pytest.mark.parametrize("case", list(HARMLESS))
def test_what_cameras_and_cameras_alone_get_wrong_is_read(case):
    np.testing.assert_array_equal(decode_compressed("jpeg", HARMLESS[case]), decode_compressed("jpeg", jpeg()))


LIES = {
    "a frame header behind TEM, as one that reads lengths there would miss": (
        after_start(with_frame(jpeg(), frame(30_000, 30_000)), b"\xff\x01" + segment(0xFE, frame(8, 8))),
        ImageFault.TOO_LARGE,
    ),
    "a false frame header in what a length behind TEM would skip": (
        START + b"\xff\x01\x00\x15" + frame(8, 8) + jpeg()[2:], ImageFault.DAMAGED,
    ),
    "a second frame header": (before_frame(jpeg(), frame(8, 8)), ImageFault.DAMAGED),
    "a second frame header before the scan": (before_scan(jpeg(), frame(9000, 9000)), ImageFault.DAMAGED),
    "a second frame header behind the scan": (jpeg()[:-2] + frame(9000, 9000) + END, ImageFault.DAMAGED),
    "a second start": (after_start(jpeg(), START), ImageFault.DAMAGED),
    "bytes between segments": (before_frame(jpeg(), b"abc"), ImageFault.DAMAGED),
    "no height, which a segment behind the scan gives": (
        with_frame(jpeg(), frame(80, 0))[:-2] + segment(0xDC, b"\0\x40") + END, ImageFault.NO_PIXELS,
    ),
    "no width": (with_frame(jpeg(), frame(0, 64)), ImageFault.NO_PIXELS),
    "more pixels than its bytes can hold": (with_frame(jpeg(), frame(7000, 7000)), ImageFault.SHORT_DATA),
    "a size above the limit": (with_frame(jpeg(), frame(30_000, 30_000)), ImageFault.TOO_LARGE),
    "12 bits": (with_frame(jpeg(), frame(80, 64, 0xC1, bits=12)), ImageFault.UNKNOWN_ENCODING),
    "a lossless frame": (with_frame(jpeg(), frame(80, 64, 0xC3)), ImageFault.UNKNOWN_ENCODING),
    "arithmetic coding": (with_frame(jpeg(), frame(80, 64, 0xC9)), ImageFault.UNKNOWN_ENCODING),
    "a hierarchical frame": (with_frame(jpeg(), frame(80, 64, 0xC5)), ImageFault.UNKNOWN_ENCODING),
    "two components": (with_frame(jpeg(), frame(80, 64, sampling=(0x11, 0x11))), ImageFault.DAMAGED),
    "factors of 0": (with_frame(jpeg(), frame(80, 64, sampling=(0x01, 0x11, 0x11))), ImageFault.DAMAGED),
    "factors of 15": (with_frame(jpeg(), frame(80, 64, sampling=(0xFF, 0x11, 0x11))), ImageFault.DAMAGED),
    "a frame header that is short": (with_frame(jpeg(), segment(0xC0, b"\x08\0\x40\0\x50\x03")), ImageFault.DAMAGED),
    "no frame header": (START + segment(0xDA) + END, ImageFault.DAMAGED),
    "no scan": (START + frame(80, 64) + END, ImageFault.DAMAGED),
    "a marker of 0": (after_start(jpeg(), b"\xff\x00\x00\x04\x00\x00"), ImageFault.DAMAGED),
    "a length of 0": (after_start(jpeg(), b"\xff\xe5\0\0"), ImageFault.DAMAGED),
    "hundreds of scans": (
        progressive()[:-2] + 500 * progressive()[progressive().rindex(b"\xff\xda") : -2] + END, ImageFault.DAMAGED,
    ),
    "a megabyte of empty segments": (after_start(jpeg(), 250_000 * segment(0xE5)), ImageFault.DAMAGED),
    "a megabyte of TEM": (after_start(jpeg(), 500_000 * b"\xff\x01"), ImageFault.DAMAGED),
    "a megabyte of empty segments behind the scan": (jpeg()[:-2] + 250_000 * segment(0xE5) + END, ImageFault.DAMAGED),
    "no end": (jpeg()[:-2], ImageFault.SHORT_DATA),
    "an end in the header": (jpeg()[:30] + END, ImageFault.SHORT_DATA),
}  # fmt: skip


@pytest.mark.parametrize("case", list(LIES))
def test_what_does_not_hold_is_refused_in_milliseconds(case):
    assert_refused_soon("jpeg", *LIES[case])


def test_the_check_of_a_frame_takes_milliseconds_at_most():
    for data in (LIES["a megabyte of empty segments"][0], HARMLESS["a megabyte of fill bytes"]):
        assert seconds_of_a_check("jpeg", data) < 5e-3


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_picture_is_turned_as_its_exif_data_ask(orientation, order):
    photo = after_start(jpeg(), exif(orientation, order))
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(decode_compressed("jpeg", photo), expected)
    assert expected.shape == ((80, 64, 3) if 5 <= orientation <= 8 else (64, 80, 3))


@pytest.mark.parametrize("cut", range(6, 42))
def test_damaged_exif_data_turn_nothing(cut):
    whole = exif(6)
    photo = after_start(jpeg(), segment(0xE1, whole[4:cut]))
    assert decode_compressed("jpeg", photo).shape == (64, 80, 3)
