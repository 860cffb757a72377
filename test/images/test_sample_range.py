from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from litevlm_ros.images.compressed import decode_compressed
from litevlm_ros.images.decoding import decode_raw
from litevlm_ros.images.sample_range import SampleRange


def frame(values: list[int], bigendian: bool = False) -> tuple[str, int, int, int, bytes, bool]:
    order = ">u2" if bigendian else "<u2"
    return "mono16", len(values), 1, 2 * len(values), np.array(values, order).tobytes(), bigendian


def grey(values: list[int], bigendian: bool = False, samples: SampleRange | None = None) -> list[int]:
    return decode_raw(*frame(values, bigendian), samples=samples)[0, :, 1].tolist()


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_values_of_every_depth_fill_the_brightness(bits, bigendian):
    top = 2**bits - 1
    values = [0, top // 3, top // 2, top]
    assert grey(values, bigendian) == [value >> (bits - 8) for value in values]
    assert grey(values, bigendian)[-1] == 255


def test_a_depth_that_no_camera_has_is_rounded_up():
    assert grey([0, 2**11 - 1]) == [0, 127]


@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "16UC3", "bayer_rggb16"])
def test_12_bit_colour_is_not_black(encoding):
    samples = 1 if "bayer" in encoding else 3
    data = np.full(6 * 6 * samples, 4095, "<u2").tobytes()
    assert decode_raw(encoding, 6, 6, 12 * samples, data).min() == 255


def test_a_12_bit_png_is_not_black():
    colour = np.zeros((4, 4, 3), np.uint16)
    colour[...] = (4095, 2048, 16)  # blue, green, red
    png = cv2.imencode(".png", colour)[1].tobytes()
    assert decode_compressed("rgb16; png compressed", png)[0, 0].tolist() == [1, 128, 255]
    mono = cv2.imencode(".png", np.full((4, 4), 4095, np.uint16))[1].tobytes()
    assert decode_compressed("mono16; png compressed", mono).min() == 255


def test_padding_and_odd_steps_are_no_values():
    rows = np.hstack([np.full((2, 4), 4095, "<u2").view(np.uint8), np.full((2, 3), 255, np.uint8)])
    assert decode_raw("mono16", 4, 2, 11, rows.tobytes()).min() == 255


def test_brightness_does_not_flicker_between_frames_of_a_camera():
    samples = SampleRange()
    assert grey([0, 4095], samples=samples) == [0, 255]
    assert grey([0, 300], samples=samples) == [0, 300 >> 4]
    assert grey([0, 65535, 4096], samples=samples) == [0, 255, 16]
    assert grey([0, 4095], samples=samples) == [0, 15]


def test_the_log_tells_it_once(caplog):
    caplog.set_level(logging.INFO)
    samples = SampleRange("camera front")
    for values in ([1000], [4095], [65535]):
        grey(values, samples=samples)
    grey([100])
    assert [record.getMessage() for record in caplog.records] == [
        "The 16-bit images of camera front hold 10-bit values, so their brightness is scaled to these 10 bits, and to "
        "more as soon as a frame has more"
    ]


def test_full_16_bit_values_are_nothing_to_tell(caplog):
    caplog.set_level(logging.INFO)
    grey([65535], samples=SampleRange("camera front"))
    assert not caplog.records
