"""Decodes image messages by their fields, whether ROS has delivered them or a recording holds them.

It needs no ROS types: a message is any object with the fields of its type.
"""

from __future__ import annotations

from typing import Any

from litevlm_ros.images.compressed import decode_compressed
from litevlm_ros.images.decoding import MAX_PIXELS, decode_raw
from litevlm_ros.images.sample_range import SampleRange
from litevlm_ros.types import RgbImage

RAW_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"


def decode_message(
    message: Any, *, compressed: bool, max_pixels: int = MAX_PIXELS, samples: SampleRange | None = None
) -> RgbImage:
    """Decodes a sensor_msgs/CompressedImage if `compressed`, else a sensor_msgs/Image, uint8 [height, width, 3].

    `samples` is the camera's range of 16-bit values; without it, it is that of the image. Raises MalformedImageError.
    """
    if compressed:
        return decode_compressed(message.format, message.data, max_pixels=max_pixels, samples=samples)
    return decode_raw(
        message.encoding,
        message.width,
        message.height,
        message.step,
        message.data,
        bool(message.is_bigendian),
        max_pixels=max_pixels,
        samples=samples,
    )
