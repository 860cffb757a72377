from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pictures import jpeg

from litevlm_ros.errors import ImageFault, MalformedImageError
from litevlm_ros.images.compressed import decode_compressed
from litevlm_ros.images.message import decode_message

RAW = SimpleNamespace(encoding="bgr8", width=2, height=1, step=6, data=bytes(range(6)), is_bigendian=0)


def test_a_raw_message_is_decoded_by_its_fields():
    assert decode_message(RAW, compressed=False).tolist() == [[[2, 1, 0], [5, 4, 3]]]


def test_a_compressed_message_is_decoded_by_its_fields():
    message = SimpleNamespace(format="jpeg", data=jpeg())
    np.testing.assert_array_equal(decode_message(message, compressed=True), decode_compressed("jpeg", jpeg()))


def test_the_limit_of_pixels_is_passed_on():
    for message, compressed in ((RAW, False), (SimpleNamespace(format="jpeg", data=jpeg()), True)):
        with pytest.raises(MalformedImageError) as refused:
            decode_message(message, compressed=compressed, max_pixels=1)
        assert refused.value.fault is ImageFault.TOO_LARGE
