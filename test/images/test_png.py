from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from picture_checks import assert_refused_soon, seconds_of_a_check
from pictures import chunk, png, png_header, png_of, png_pixels, scene

from litevlm_ros.errors import ImageFault
from litevlm_ros.images.compressed import decode_compressed
from litevlm_ros.images.png import read_png_header, rewritten

_ZEROS = zlib.compress(bytes(30_000_000), 9)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 3), (1280, 720)])
def test_the_size_is_read(width, height):
    header = read_png_header(png(width, height))
    assert (header.width, header.height, header.bits) == (width, height, 8)


def test_a_rewritten_png_has_nothing_that_is_not_needed():
    texts = (
        chunk(b"zTXt", b"k\0\0" + _ZEROS) + chunk(b"iCCP", b"k\0\0" + _ZEROS) + chunk(b"iTXt", b"k\0\1\0\0\0" + _ZEROS)
    )
    animation = chunk(b"acTL", struct.pack(">II", 1000, 0))
    plain = png_of(png_header(8, 8), png_pixels(8, 8))
    dressed = png_of(png_header(8, 8), texts, animation, png_pixels(8, 8), chunk(b"fdAT", bytes(4)), chunk(b"tIME"))
    assert rewritten(read_png_header(dressed), dressed) == plain
    assert rewritten(read_png_header(plain + b"behind"), plain + b"behind") == plain
    assert decode_compressed("png", dressed).shape == (8, 8, 3)


@pytest.mark.parametrize("code", [None, cv2.COLOR_RGB2BGR, cv2.COLOR_RGB2BGRA])
def test_every_kind_is_read(code):
    pixels = scene()[..., :1] if code is None else cv2.cvtColor(scene(), code)
    expected = scene() if code is not None else scene()[..., [0, 0, 0]]
    np.testing.assert_array_equal(decode_compressed("png", cv2.imencode(".png", pixels)[1].tobytes()), expected)


def test_an_interlaced_png_is_read():
    data = png_of(png_header(16, 16, interlaced=1), chunk(b"IDAT", zlib.compress(bytes(4096))))
    assert decode_compressed("png", data).shape == (16, 16, 3)


def test_a_palette_is_kept():
    palette = chunk(b"PLTE", bytes([9, 8, 7, 6, 5, 4]))
    data = png_of(png_header(2, 1, 8, 3), palette, chunk(b"IDAT", zlib.compress(b"\0\0\1")))
    assert decode_compressed("png", data).tolist() == [[[9, 8, 7], [6, 5, 4]]]


LIES = {
    "another size": (png_of(png_header(80, 64), png_pixels(8, 8)), ImageFault.DAMAGED),
    "more pixels than its bytes can hold": (png_of(png_header(7000, 7000), png_pixels(8, 8)), ImageFault.SHORT_DATA),
    "too many pixels": (png_of(png_header(60_000, 60_000), png_pixels(8, 8)), ImageFault.TOO_LARGE),
    "no pixels": (png_of(png_header(0, 8), png_pixels(8, 8)), ImageFault.NO_PIXELS),
    "a second header": (png_of(png_header(8, 8), png_header(9000, 7000), png_pixels(8, 8)), ImageFault.DAMAGED),
    "a header behind another chunk": (
        png_of(chunk(b"tEXt", b"k\0v"), png_header(8, 8), png_pixels(8, 8)), ImageFault.SHORT_DATA,
    ),
    "a header of a wrong length": (png_of(chunk(b"IHDR", bytes(14)), png_pixels(8, 8)), ImageFault.SHORT_DATA),
    "3 bits": (png_of(png_header(8, 8, 3), png_pixels(8, 8)), ImageFault.DAMAGED),
    "a colour type of 5": (png_of(png_header(8, 8, 8, 5), png_pixels(8, 8)), ImageFault.DAMAGED),
    "pixels in two pieces": (
        png_of(png_header(8, 8), png_pixels(8, 8), chunk(b"tIME"), png_pixels(8, 8)), ImageFault.DAMAGED,
    ),
    "two palettes": (png_of(png_header(8, 8), 2 * chunk(b"PLTE", bytes(3)), png_pixels(8, 8)), ImageFault.DAMAGED),
    "an unknown chunk that matters": (png_of(png_header(8, 8), chunk(b"ABCD"), png_pixels(8, 8)), ImageFault.DAMAGED),
    "no pixel chunk": (png_of(png_header(8, 8)), ImageFault.DAMAGED),
    "half of the packed pixels": (
        png_of(png_header(80, 64), chunk(b"IDAT", zlib.compress(scene().tobytes())[:4000])), ImageFault.DAMAGED,
    ),
    "rows that are missing": (png_of(png_header(80, 64), png_pixels(80, 60)), ImageFault.DAMAGED),
    "a wrong checksum": (
        png_of(png_header(8, 8), png_pixels(8, 8)[:-1] + b"\1"), ImageFault.DAMAGED,
    ),
    "a megabyte of empty chunks": (
        png_of(png_header(8, 8), 90_000 * chunk(b"tEXt"), png_pixels(8, 8)), ImageFault.DAMAGED,
    ),
    "a megabyte of empty pixel chunks": (
        png_of(png_header(8, 8), 90_000 * chunk(b"IDAT"), png_pixels(8, 8)), ImageFault.DAMAGED,
    ),
    "no end": (png_of(png_header(8, 8), png_pixels(8, 8))[:-12], ImageFault.SHORT_DATA),
    "a chunk that claims 2 GB": (
        png_of(png_header(8, 8), struct.pack(">I4s", 2**31 - 1, b"tEXt"), png_pixels(8, 8)), ImageFault.SHORT_DATA,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(LIES))
def test_what_does_not_hold_is_refused_in_milliseconds(case):
    assert_refused_soon("png", *LIES[case])


def test_the_check_of_a_frame_takes_milliseconds_at_most():
    assert seconds_of_a_check("png", LIES["a megabyte of empty chunks"][0]) < 8e-3


def test_an_orientation_in_a_png_may_swap_width_and_height():
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    data = png_of(png_header(4, 2), chunk(b"eXIf", tiff), png_pixels(4, 2))
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decode_compressed("png", data).shape == expected.shape
